# SPDX-License-Identifier: Apache-2.0
"""``tramontane completions``: the script that lets a shell complete commands, options and their values.

bash, zsh and fish come with click; PowerShell is added here by the same protocol: the shell runs the program with
``_TRAMONTANE_COMPLETE`` set, and the program prints what fits.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from tramontane.cli.app import COMPLETING
from tramontane.cli.state import verbosity_options

PROGRAM = "tramontane"
SHELLS = ("bash", "zsh", "fish", "powershell")
_PLACES = {
    "bash": "~/.local/share/bash-completion/completions/tramontane",
    "zsh": "a folder of $fpath, as _tramontane",
    "fish": "~/.config/fish/completions/tramontane.fish",
    "powershell": "the file that $PROFILE names",
}

_POWERSHELL = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($word, $line, $cursor)
    $env:%(complete_var)s = 'powershell_complete'
    $env:COMP_WORDS = $line.ToString()
    $env:COMP_CWORD = $word
    try {
        %(prog_name)s | ForEach-Object {
            $kind, $value, $help = $_ -split "`t", 3
            if ($kind -eq 'file') {
                Get-ChildItem -Path "$value*" -ErrorAction SilentlyContinue | ForEach-Object {
                    [System.Management.Automation.CompletionResult]::new($_.FullName)
                }
            } else {
                if (-not $help) { $help = $value }
                [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
            }
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_CWORD
    }
}
"""


@add_completion_class
class PowerShellComplete(ShellComplete):
    """PowerShell: one line per candidate, its kind, value and help between tabs."""

    name = "powershell"
    source_template = _POWERSHELL

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is typed, and what of it is there."""
        words = split_arg_string(os.environ.get("COMP_WORDS", ""))
        incomplete = os.environ.get("COMP_CWORD", "")
        args = words[1:]
        if incomplete and args and args[-1] == incomplete:
            args.pop()
        return args, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """One line."""
        return f"{item.type}\t{item.value}\t{item.help or ''}"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@verbosity_options
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete this program's commands.

    For bash, try it with: eval "$(tramontane completions bash)"
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"there is no completion for {shell}", context)
    click.echo(made(context.find_root().command, {}, PROGRAM, COMPLETING).source())
    click.echo(f"# To keep it, write this to {_PLACES[shell]}.")
