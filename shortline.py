"""What every command of shortline keeps to: exit codes, user errors, flags, files written whole.

Exit codes: 0 done; 2 the user's input or flags are wrong (one line on stderr); 75 stopped by a
signal after a checkpoint; 130 interrupted with nothing to resume; anything else is our bug.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import io
import itertools
import os
import re
import signal
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

__version__ = "0.1.0"

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130

_COMMANDS = {"train", "tfdata", "model", "bench", "labels"}

ConfigT = TypeVar("ConfigT")


class UserError(Exception):
    """The user's input or flags are wrong; the message names the file, row or flag and the mend."""


def run_command(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Runs `main(None)` and exits by the codes above; users see no traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    signal.signal(signal.SIGTERM, _interrupt)  # so that temporary files are cleared away
    try:
        code = main(None) or 0
        sys.stdout.flush()
    except UserError as error:
        code = _complain(str(error))
    except BrokenPipeError:  # the reader of our stdout went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        _complain("interrupted")
        code = EXIT_INTERRUPTED
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        code = _complain(f"{where}{error.strerror or error}{_ERRNO_MENDS.get(error.errno, '')}")
    sys.exit(code)


def _end_quietly(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """`sys.excepthook` of a command that still imports what it needs: Ctrl-C is one line, too."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _complain("interrupted")


def _is_command(words: Sequence[str]) -> bool:
    """Whether Python was started with these words for one of our commands, not for a user's own.

    >>> _is_command(["python", "-m", "model.predict", "run"]), _is_command(["python", "my.py"])
    (True, False)
    """
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "-m":
            return following.partition(".")[0] in _COMMANDS
        if word.endswith(".py"):
            return os.path.basename(word) == "train.py"
    return False


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


_ERRNO_MENDS = {
    errno.ENOSPC: "; free some space, or choose other folders by --out and $SHORTLINE_CACHE",
    errno.EDQUOT: "; free some space, or choose other folders by --out and $SHORTLINE_CACHE",
    errno.EACCES: "; choose a place that you may read and write",
    errno.EIO: "; the disk, or the network to it, failed: copy the file elsewhere, or try again",
}
_USER_ERRNOS = {*_ERRNO_MENDS, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EROFS, errno.EEXIST}


def _complain(message: str) -> int:
    print("error: " + printable(" ".join(message.split())), file=sys.stderr)
    return EXIT_USER_ERROR


def import_tensorflow(is_alone: bool = True) -> None:
    """Imports TensorFlow and finds the devices, without its dozen lines of greetings.

    They come from native code before any setting can stop them. TF_CPP_MIN_LOG_LEVEL=0 or 1 in
    the environment lets them through: they tell why a GPU is not found. Where it is not `is_alone`
    but one of several workers, pages of errors about another that is gone are kept back, too: who
    it is will be said in one line.
    """
    keep = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2") in ("0", "1")
    if not (is_alone or keep):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        if not keep:
            os.dup2(null, 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
    # it counts functions that were made anew, one for each classifier, as one traced often
    tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())


def printable(text: str, limit: int | None = None) -> str:
    r"""Text that cannot steer a terminal: control and format characters become escapes.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _STEERING else c
        for c in text
    )


_STEERING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@contextlib.contextmanager
def write_whole(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file that takes the place of `path`, synced, when the block ends well."""
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(
        prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
    )
    try:
        encoding = None if "b" in mode else "utf-8"
        newline = None if "b" in mode else ""
        with os.fdopen(descriptor, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """The process's file mode mask, as it was when it started."""
    return _UMASK


def _read_umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


_UMASK = _read_umask()  # reading it sets it for a moment: not while threads may create files


def parse_flags(
    config_type: type[ConfigT],
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    check: Callable[[ConfigT], None] | None = None,
) -> ConfigT:
    """Builds `config_type` from a preset, then `--config FILE.yaml`, then flags; the later wins.

    Args:
      check: of what is not wrong always; raises a UserError that names the flag.

    Raises:
      UserError: an unknown flag, key or preset, or a value that does not fit, in one line.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    fields = flat_fields(config_type)
    settings = _read_yaml(argv) if "config" in fields else {}
    origin = f"--config {last_value(argv, '--config')}: "
    _refuse_empty(argv, fields)
    words = _as_arguments(settings, fields, origin) + argv
    try:
        config = _parse(config_type, words, fields, prog, description, presets)
        if check is not None:
            check(config)
        return config
    except UserError as error:
        raise UserError(_with_origin(str(error), settings, argv, origin)) from error


def _parse(
    config_type: type[ConfigT], argv: list[str], fields: Mapping[str, Any], prog: str,
    description: str, presets: Mapping[str, Mapping[str, Any]] | None,
) -> ConfigT:  # fmt: skip
    import tyro

    if presets:
        preset = last_value(argv, "--preset") or next(iter(presets))
        if preset not in presets:
            raise UserError(f"--preset {preset}: unknown; choose one of {', '.join(presets)}")
        argv = _as_arguments(presets[preset], fields) + argv
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(
                config_type, args=argv, prog=prog, description=description,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
            )  # fmt: skip
    except ValueError as error:  # raised by a dataclass that checks its own values
        raise UserError(str(error)) from error
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise UserError(_one_line(captured.getvalue(), prog, fields)) from None


def flat_fields(config_type: type) -> dict[str, dataclasses.Field]:
    """All fields of a dataclass and of the dataclasses inside it, by name (names are unique)."""
    import typing

    hints = typing.get_type_hints(config_type)
    fields: dict[str, dataclasses.Field] = {}
    for field in dataclasses.fields(config_type):
        if dataclasses.is_dataclass(hints[field.name]):
            fields |= flat_fields(hints[field.name])  # type: ignore[arg-type]
        else:
            fields[field.name] = field
    return fields


def flat_values(config: Any) -> dict[str, Any]:
    """The values of `flat_fields`, as YAML and JSON can hold them."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            values |= flat_values(value)
        else:
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


def describe_value(value: Any) -> str:
    """The value of a flag as one would type it, or in words where nobody could.

    >>> describe_value(["a.csv", "b.csv"]), describe_value(True), describe_value(None)
    ('a.csv b.csv', 'on', 'none')
    """
    if value is None or value in ((), []):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _with_origin(said: str, settings: Mapping[str, Any], argv: Sequence[str], origin: str) -> str:
    """An error about a flag; where it comes from a file, with that, and the key in its place."""
    flag = re.search(r"--[\w-]+", said)
    given = {re.sub("^--(no-)?", "", word.partition("=")[0].replace("_", "-")) for word in argv}
    for key in settings:
        name = str(key).replace("_", "-")
        if flag and flag[0] == f"--{name}" and name not in given:
            return origin + said.replace(flag[0], f"`{key}`", 1)
    return said


def _read_yaml(argv: list[str]) -> Mapping[str, Any]:
    """What the file of --config holds."""
    path = last_value(argv, "--config")
    if path is None:
        return {}
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file) or {}
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--config {path}: not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"--config {path}: must hold `flag: value` lines")
    return settings


def _as_arguments(
    settings: Mapping[str, Any], fields: Mapping[str, Any], origin: str = ""
) -> list[str]:
    """Settings as command-line words, so that flags and files are checked by the same parser."""
    words: list[str] = []
    for key, value in settings.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            mend = f"did you mean `{near[0]}`?" if near else "`--help` lists the flags"
            raise UserError(f"{origin}unknown key `{key}`; {mend}")
        flag = "--" + name.replace("_", "-")
        kind = str(fields[name].type)
        if kind == "bool":
            if not isinstance(value, bool):
                raise UserError(f"{origin}`{key}` must be true or false, not {value!r}")
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, bool):
            raise UserError(f"{origin}`{key}` must be a value, not {str(value).lower()}")
        elif value is None and "None" not in kind:
            raise UserError(f"{origin}`{key}` must be a value, not null; leave the key out")
        elif isinstance(value, (list, tuple)) and kind.startswith("tuple"):
            if dashed := [str(item) for item in value if str(item).startswith("-")]:
                raise UserError(
                    f"{origin}`{key}`: {dashed[0]} begins with a dash; write ./{dashed[0]}"
                )
            words += [flag, *map(str, value)]
        elif isinstance(value, (list, tuple, dict)):
            raise UserError(f"{origin}`{key}` must be a single value")
        else:
            words.append(f"{flag}={value}")  # one word, which may begin with a dash
    return words


_MAY_BE_EMPTY = {"filters", "against", "random_sets"}
"""Flags of which an empty value says something: none of them."""


def _refuse_empty(argv: Sequence[str], fields: Mapping[str, dataclasses.Field]) -> None:
    """Raises a UserError for what a shell's variable leaves where it is not set: a flag of several
    values without one, or an empty value where none is meant."""
    kinds = {"--" + name.replace("_", "-"): field for name, field in fields.items()}
    for before, word in itertools.pairwise(["", *argv, "--"]):
        flag, equals, _ = before.partition("=")
        field = kinds.get(flag.replace("_", "-"))
        if field is None:
            if not word and not before.startswith("-"):
                raise UserError("an empty value, '', among others: is a shell's variable unset?")
            continue
        is_list = str(field.type).startswith("tuple") and not equals and "--help" not in argv
        is_empty = before.endswith("=") if equals else not word
        may_be_empty = field.name in _MAY_BE_EMPTY or (field.type == "str" and field.default == "")
        if (is_list and word.startswith("--")) or (is_empty and not may_be_empty):
            raise UserError(f"{flag}: has no value, or an empty one; give one, or leave it out")


def last_value(argv: Sequence[str], flag: str) -> str | None:
    value = None
    for position, word in enumerate(argv):
        if word == flag and position + 1 < len(argv):
            value = argv[position + 1]
        elif word.startswith(flag + "="):
            value = word[len(flag) + 1 :]
    return value


_KINDS = {"INT": "a whole number", "FLOAT": "a number"}
"""What tyro calls a type, in words."""


def _one_line(boxed: str, prog: str, names: Iterable[str]) -> str:
    """The first statement of tyro's boxed error, without the box."""
    lines = [re.sub(r"[│╭╮╰╯]", "", line).strip() for line in boxed.splitlines()]
    kept: list[str] = []
    for line in lines[1:]:
        if re.fullmatch(r"[─\s]+", line):
            break
        kept.append(line)
    text = " ".join(" ".join(kept).split()).rstrip(".") or "cannot read the flags"
    checked = re.fullmatch(r"Error parsing [\w.]+: (--.*)", text)
    if checked:  # the words of a dataclass that checks its own values
        return checked[1]
    misfit = re.match(r"Error parsing (--\S+): no type matching (\S+) .* from \['(.*?)'\]", text)
    if misfit:
        kinds = (_KINDS.get(kind, kind.strip("{}")) for kind in misfit[2].split("|"))
        return f"{misfit[1]} {misfit[3]}: must be {' or '.join(kinds)}"
    choice = re.match(r"invalid choice '(.*)' for argument '(--\S+)'.*\((.*)\)", text)
    if choice:
        allowed = choice[3].replace("'", "").replace(", ", " or ")
        return f"{choice[2]} {choice[1]}: must be {allowed}"
    number = re.match(r"Error parsing (--\S+): could not convert string to float: '(.*)'", text)
    if number:
        return f"{number[1]} {number[2]}: must be a number"
    unknown = re.match(r"Unrecognized options: (--[\w-]+)", text)
    if unknown:
        flags = ["--" + name.replace("_", "-") for name in names]
        near = difflib.get_close_matches(unknown[1], flags, n=1)
        text += f"; did you mean {near[0]}?" if near else ""
    return f"{text}; `{prog} --help` lists the flags"


if _is_command(sys.orig_argv):
    sys.excepthook = _end_quietly
