"""Importing XGBoost: where it is used, with an error that helps, and fast in training actors."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from skate.xgboost.errors import XGBoostNotInstalledError

#: The first release whose tracker and collective work the way that is used here.
MINIMUM = (3, 0)


def xgboost() -> ModuleType:
    """Return the ``xgboost`` module.

    Raises:
        XGBoostNotInstalledError: it is missing, broken or too old.
    """
    try:
        module = importlib.import_module("xgboost")
    except ImportError as error:
        raise XGBoostNotInstalledError(
            f"skate.xgboost needs XGBoost, which cannot be imported ({error});"
            " install it with: pip install 'skate[xgboost]'"
        ) from error
    version = tuple(int(part) for part in module.__version__.split(".")[:2])
    if version < MINIMUM:
        raise XGBoostNotInstalledError(
            f"skate.xgboost needs XGBoost 3.0 or newer, but {module.__version__} is installed;"
            " upgrade it with: pip install 'skate[xgboost]'"
        )
    return module


def require_numpy() -> None:
    """Check that NumPy is there: data is checked with it long before XGBoost is imported.

    Raises:
        XGBoostNotInstalledError: it is missing.
    """
    if importlib.util.find_spec("numpy") is None:
        raise XGBoostNotInstalledError(
            "skate.xgboost needs NumPy and XGBoost; install them with: pip install 'skate[xgboost]'"
        )


def pyarrow(what: str) -> ModuleType:
    """Return the ``pyarrow`` module.

    Args:
        what: needs it; for the error.

    Raises:
        XGBoostNotInstalledError: it is missing.
    """
    return _needed("pyarrow", what, "pip install pyarrow")


def cupy(what: str) -> ModuleType:
    """Return the ``cupy`` module.

    Args:
        what: needs it; for the error.

    Raises:
        XGBoostNotInstalledError: it is missing.
    """
    return _needed("cupy", what, "pip install cupy-cuda12x (or cupy-cuda13x)")


def require_pandas(what: str) -> None:
    """Check that pandas is there.

    Args:
        what: needs it; for the error.

    Raises:
        XGBoostNotInstalledError: it is missing.
    """
    _needed("pandas", what, "pip install 'skate[xgboost]'")


def _needed(module: str, what: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise XGBoostNotInstalledError(
            f"{what} needs {module}, which cannot be imported ({error}); install it with: {remedy}"
        ) from error


def without_estimators() -> ModuleType:
    """Return ``xgboost``, imported without scikit-learn where that saves the time to load it.

    Nine tenths of the second that ``import xgboost`` takes are scikit-learn, SciPy's statistics
    and pandas, which it loads for its estimators alone.  A process that does nothing but train
    has no use for them.  XGBoost itself goes without when scikit-learn is not installed, and
    that is how it is made to look for the moment.

    Call it in processes of one's own only, before other threads import anything: in the process
    the estimators of ``xgboost`` stay unusable.
    """
    modules: dict[str, Any] = sys.modules
    if "xgboost" in modules or "sklearn" in modules:
        return xgboost()
    modules["sklearn"] = None  # what ``import`` takes for "does not exist"
    try:
        return xgboost()
    finally:
        del modules["sklearn"]
