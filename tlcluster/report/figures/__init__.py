"""The figures of the report: records and metrics → SVG and PNG.

Matplotlib is imported here, before any file of this package needs it, and
without the settings of the user: a notebook names a backend that is not
installed, and a `matplotlibrc` may be damaged.
"""

import logging
import os

_NEUTRAL = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
_before = {name: os.environ.get(name) for name in _NEUTRAL}

# Fonts, caches and settings of the user are no news for the terminal of a run.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
os.environ.update(_NEUTRAL)
try:
    import matplotlib  # noqa: F401
finally:
    for _name, _value in _before.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value
