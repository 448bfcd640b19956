from __future__ import annotations

import errno

import pytest

from avsbench_harness import errors


def test_the_most_similar_name_is_suggested() -> None:
    assert str(errors.unknown("task", "avs", ["s4", "avss"])) == "Unknown task 'avs'. Did you mean 'avss'?"
    assert str(errors.unknown("task", "xyz", ["s4", "ms3"])) == "Unknown task 'xyz'. Known: ms3, s4."
    assert str(errors.unknown("task", "xyz", [])) == "Unknown task 'xyz'."


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.AvsbError("x"), 1),
        (errors.UsageError("x"), 2),
        (errors.SubmissionError("x"), 3),
        (errors.MissingDataError("x"), 4),
        (errors.Interrupted("x", 143), 143),
    ],
)
def test_exit_codes(error: errors.AvsbError, code: int) -> None:
    assert error.exit_code == code


HOSTILE = "a\x1b]8;;http://evil\x07\x9b\u202e\ud800\x00\n b"


def test_untrusted_text_is_neutralised() -> None:
    assert errors.one_line(HOSTILE) == "a\ufffd]8;;http://evil\ufffd\ufffd\ufffd\ufffd\ufffd b"
    assert errors.printable(HOSTILE).splitlines() == [errors.one_line(HOSTILE)[:-2], " b"]
    assert errors.one_line("x" * 1000, 20) == "x" * 17 + "..."
    assert "\x1b" not in str(errors.UsageError(f"{HOSTILE} is wrong."))
    assert len(str(errors.UsageError("x" * 10**6))) == errors.MAX_MESSAGE


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "x", "/a/b"), "The disk is full: /a/b cannot be written"),
        (OSError(errno.ENOSPC, "x"), "The disk is full: the output cannot be written"),
        (
            OSError(errno.EFBIG, "x"),
            "the output cannot be written: the limit of the size of files is reached",
        ),
        (PermissionError(errno.EACCES, "x", "/a/b"), "No permission for /a/b"),
        (OSError(errno.EROFS, "x", b"/a/b"), "/a/b is on a read-only file system"),
        (NotADirectoryError(errno.ENOTDIR, "x", "/a/b"), "/a/b needs a folder where there is a file"),
        (OSError(errno.EIO, "Input/output error", "/a/{b}"), "/a/{b}: Input/output error."),
    ],
)
def test_errors_of_files_are_sentences_with_the_path(error: OSError, message: str) -> None:
    found = errors.os_error(error)
    assert found is not None
    assert str(found).startswith(message)
    assert found.exit_code == 1


def test_other_errors_keep_their_traceback() -> None:
    assert errors.os_error(OSError("cannot identify image file")) is None
    assert errors.os_error(OSError(errno.ECHILD, "No child processes")) is None


@pytest.mark.parametrize(
    "error", [KeyError("x"), SystemExit(0), GeneratorExit(), RuntimeError("a\nb\x1b[1m")]
)
def test_an_exception_of_a_plugin_is_one_sentence(error: BaseException) -> None:
    message = r"^x cannot be built: \w+: .*\(test_errors\.py, line \d+\)\.$"
    with pytest.raises(errors.AvsbError, match=message) as found, errors.plugin_errors("x cannot be built"):
        raise error
    assert str(found.value).isprintable()


@pytest.mark.parametrize("error", [errors.UsageError("an own sentence"), KeyboardInterrupt()])
def test_errors_for_users_and_interrupts_of_a_plugin_are_kept(error: BaseException) -> None:
    with pytest.raises(type(error)), errors.plugin_errors("x cannot be built"):
        raise error
