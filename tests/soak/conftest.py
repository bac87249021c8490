import os
import pathlib
import tempfile

import pytest

from pair import Pair
from place import Place


@pytest.fixture()
def place():
    # Not pytest's own: each run of it closes the folder of all runs to other users, and this suite has three users.
    with tempfile.TemporaryDirectory(prefix="sidegate-soak-") as folder:
        made = Place(pathlib.Path(folder))
        try:
            yield made.build()
        finally:
            made.close()


@pytest.fixture()
def pair():
    with tempfile.TemporaryDirectory(prefix="sidegate-pair-") as folder:
        made = Pair(pathlib.Path(folder), f"sg-pair{os.getpid()}-")
        try:
            yield made.build()
        finally:
            made.close()
