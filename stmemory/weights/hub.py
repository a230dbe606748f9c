"""The Hugging Face Hub: files of a repository in, a folder out; huggingface_hub is loaded
when it is called."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from stmemory.errors import OptionError, WeightsError

__all__ = ["Where", "checked", "download", "download_matching", "fetch_if_there", "is_repository", "upload"]


class Where(TypedDict, total=False):
    """Which files of the Hub to take, and how; what is left out keeps huggingface_hub's own default.

    Attributes:
        revision: a branch, a tag or a commit; a commit pins the weights for good.
        cache_dir: where downloads are kept.
        token: for repositories that are private or gated; None takes the one that was logged in with, False sends none.
        local_files_only: do not connect, take what was downloaded before.
    """

    revision: str | None
    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool


def is_repository(name: str) -> bool:
    """Whether a name can be one of a repository, `owner/name`.

    >>> is_repository("timm/resnet50_gn.a1h_in1k"), is_repository("lite"), is_repository("./weights")
    (True, False, False)
    """
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def checked(where: Where | None) -> Where:
    """The same, when it holds nothing but what `Where` names, of the types that it names.

    Raises:
        OptionError: it does not.

    >>> checked({"revision": "v1"})
    {'revision': 'v1'}
    """
    given: dict[str, object] = {**(where or {})}
    kinds: dict[str, tuple[type, ...]] = {
        "revision": (str,),
        "cache_dir": (str, Path),
        "token": (str, bool),
        "local_files_only": (bool,),
    }
    for name, value in given.items():
        if name not in kinds:
            raise OptionError(f"from_pretrained: expected options of {', '.join(kinds)}, device and dtype, got {name}")
        if (value is not None and not isinstance(value, kinds[name])) or value == "":
            raise OptionError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds[name])}, got {value!r}")
    return where or {}


def download(repository: str, files: Sequence[str], where: Where | None = None) -> Path:
    """Fetch files of a repository, or find them in the cache.

    The first file settles the commit and the others are taken from the same one, so a push in between mixes nothing.

    Args:
        repository: `owner/name`.
        files: names in the repository, at least one.
        where: see `Where`.

    Returns:
        The folder that holds them all.

    Raises:
        WeightsError: the repository, revision or a file is not there, may not be read, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    chosen: Where = {**checked(where)}
    folder = Path()
    for file in files:
        with _told(repository, file, chosen.get("revision")):
            folder = Path(hf_hub_download(repository, file, library_name="stmemory", **chosen)).parent
        chosen["revision"] = folder.name  # the cache names the folder by its commit
    return folder


def download_matching(repository: str, patterns: Sequence[str], where: Where | None = None) -> Path:
    """Fetch all files of a repository whose names match one of several patterns, or find them in the cache.

    Args:
        repository: `owner/name`.
        patterns: such as `"*.safetensors"`.
        where: see `Where`.

    Returns:
        The folder that holds them.

    Raises:
        WeightsError: as of `download`.
    """
    from huggingface_hub import snapshot_download

    chosen = checked(where)
    with _told(repository, " and ".join(patterns), chosen.get("revision")):
        return Path(snapshot_download(repository, allow_patterns=list(patterns), library_name="stmemory", **chosen))


def fetch_if_there(
    folder: Path, repository: str, files: Sequence[str], *, token: str | None, revision: str | None
) -> None:
    """Copy files of a repository to a folder, those that are there; none where there is no such repository or revision.

    Raises:
        WeightsError: the Hub cannot be asked.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="stmemory")
    for file in files:
        with _told(repository, file, revision):
            if api.file_exists(repository, file, revision=revision):
                shutil.copy(api.hf_hub_download(repository, file, revision=revision), folder / file)


def upload(
    folder: Path, repository: str, *, private: bool = False, token: str | None = None, revision: str | None = None
) -> str:
    """Make a repository if there is none, and commit a folder to it.

    Args:
        folder: all of its files are sent.
        repository: `owner/name`.
        private: whether a repository made here is.
        token: with the right to write; None takes the one that was logged in with.
        revision: branch to commit to, made if it is not there; None is the main one.

    Returns:
        The commit's address.

    Raises:
        WeightsError: the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="stmemory")
    with _told(repository, "the repository", revision):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, revision=revision, commit_message="Upload weights of stmemory"
        )
    return str(commit.commit_url)


@contextmanager
def _told(repository: str, file: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one kind of error that says what to do."""
    from huggingface_hub import errors

    # the HTTP client's own error, whichever client this version of huggingface_hub uses
    of_client = [base for base in errors.HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    others: tuple[type[Exception], ...] = (errors.HFValidationError, OSError, RuntimeError, UnicodeError, *of_client)
    what = f"{repository} on the Hub"
    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{what}: expected access, got a gated repository; accept its conditions on its page, log in with `hf "
            "auth login`, or pass token="
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{what}: expected a repository that exists and that you may use, got none; check the name, and for a "
            "private one log in with `hf auth login` or pass token="
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(
            f"{what}: expected a branch, tag or commit of it, got revision {revision!r}; look at its page"
        ) from error
    except errors.LocalEntryNotFoundError as error:  # offline, or no answer
        reason = _reason(error.__cause__ or error)
        raise WeightsError(
            f"{what}: expected {file} in the local cache, since the Hub was not or could not be asked, got nothing "
            f"({reason}); download once with a connection, without local_files_only and HF_HUB_OFFLINE"
        ) from error
    except errors.EntryNotFoundError as error:
        raise WeightsError(
            f"{what}: expected a file {file}, got a repository without it; it holds no weights of stmemory"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise WeightsError(f"{what}: expected a connection, got offline mode; unset HF_HUB_OFFLINE") from error
    except others as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or isinstance(error, UnicodeError):
            raise WeightsError(
                f"{what}: expected a token with the right to use {file}, got {_reason(error)}; log in with `hf auth "
                "login`, or pass another token="
            ) from error
        raise WeightsError(
            f"{what}: expected {file}, got {_reason(error)}; try again, or look whether the Hub can be reached"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what an error says, and its kind."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
