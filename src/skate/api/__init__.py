"""The public API, re-exported by the package ``skate``; import it from there."""
