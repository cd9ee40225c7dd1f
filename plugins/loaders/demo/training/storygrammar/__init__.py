# SPDX-License-Identifier: Apache-2.0
"""A grammar of short children's stories: the only text the demo model is trained on.

Owns the words, the plots and the rule that turns a seed into a story (:func:`training.storygrammar.generate.story`).
Never reads a file and never touches a tensor.
"""
