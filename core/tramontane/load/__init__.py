# SPDX-License-Identifier: Apache-2.0
"""Loading: from a reference and options to a model that runs."""

from tramontane.load.calibrate import Calibration, calibrate
from tramontane.load.design import Design, design, plan_weights
from tramontane.load.find import choose_backend, find_architecture, local_files, open_reference
from tramontane.load.model import LoadedModel, load_model
from tramontane.load.options import LoadOptions
from tramontane.load.requantize import Exchange, exchange_weights, plan_exchange
from tramontane.load.save import Saved, save_model
from tramontane.load.survey import Survey, survey

__all__ = [
    "Calibration",
    "Design",
    "Exchange",
    "LoadOptions",
    "LoadedModel",
    "Saved",
    "Survey",
    "calibrate",
    "choose_backend",
    "design",
    "exchange_weights",
    "find_architecture",
    "load_model",
    "local_files",
    "open_reference",
    "plan_exchange",
    "plan_weights",
    "save_model",
    "survey",
]
