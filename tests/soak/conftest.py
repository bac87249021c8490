import pytest

from place import Place


@pytest.fixture()
def place(tmp_path):
    made = Place(tmp_path)
    try:
        yield made.build()
    finally:
        made.close()
