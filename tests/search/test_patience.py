"""Storage that does not answer is waited for, a full disk is not."""

import errno
import logging

import pytest

from isotrain.search.storage import patiently


class Storage:
    """Answers after so many problems."""

    def __init__(self, problems: int, number: int) -> None:
        self.left, self.number = problems, number

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise OSError(self.number, "out of reach")
        return "answer"


def test_it_waits_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert patiently(Storage(2, errno.ESTALE), 60, "asking") == "answer"
    assert "out of reach" in caplog.text and "storage answers again" in caplog.text


def test_it_does_not_wait_for_ever() -> None:
    storage = Storage(10**6, errno.EIO)
    with pytest.raises(OSError, match="out of reach"):
        patiently(storage, 0.2, "asking")
    assert storage.left < 10**6 - 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_raised_at_once(number: int) -> None:
    storage = Storage(2, number)
    with pytest.raises(OSError, match="out of reach"):
        patiently(storage, 60, "asking")
    assert storage.left == 1


def test_what_is_no_matter_of_storage_is_raised_at_once() -> None:
    with pytest.raises(KeyError):
        patiently(lambda: {}["nothing"], 60, "asking")
