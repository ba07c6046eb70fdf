"""joblib, and with it scikit-learn, on the processes of the session."""

from __future__ import annotations

__all__ = ["register_ray", "register_skate"]


def register_skate() -> None:
    """Make ``joblib.parallel_config(backend="skate")`` (and ``parallel_backend``) work.

    The same backend is registered under the name "ray" as well.

    Raises:
        ImportError: joblib is not installed.
    """
    try:
        from joblib.parallel import register_parallel_backend
    except ImportError as error:
        raise ImportError(
            f"register_skate() needs joblib, which cannot be imported ({error}); install it with:"
            " pip install 'skate[joblib]'"
        ) from error
    from skate.util.joblib.backend import SkateBackend

    register_parallel_backend("skate", SkateBackend)
    register_parallel_backend("ray", SkateBackend)


register_ray = register_skate
