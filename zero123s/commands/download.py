"""`zero123s download NAME`: fetch a published checkpoint into load/zero123/ through huggingface_hub."""

import argparse
import http.client
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zero123s.diffusion.checkpoint.family import LICENCES
from zero123s.diffusion.checkpoint.locate import REPOSITORY
from zero123s.diffusion.checkpoint.weights_file import open_weights, sha256_of
from zero123s.errors import CheckpointError, UserError
from zero123s.runtime.files import user_path

SHA256_LENGTH = 64


@dataclass(frozen=True)
class Published:
    """Where a checkpoint is published, and its licence, a key of `family.LICENCES`."""

    repo: str
    file: str
    licence: str
    url: str = ""
    """Address of a file that the hub does not hold, without the server's name; `site` has it."""
    site: str = "https://zero123.cs.columbia.edu"


PUBLISHED = {
    "stable-zero123": Published("stabilityai/stable-zero123", "stable_zero123.ckpt", "stable-zero123"),
    "stable-zero123-c": Published("stabilityai/stable-zero123", "stable_zero123_c.ckpt", "stable-zero123-c"),
    "zero123": Published("cvlab/zero123-weights", "105000.ckpt", "zero123"),
    "zero123-165000": Published("cvlab/zero123-weights", "165000.ckpt", "zero123"),
    # Its authors publish it on their own server only.
    "zero123-xl": Published("", "zero123-xl.ckpt", "zero123", url="/assets/zero123-xl.ckpt"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="zero123s download", description=__doc__)
    parser.add_argument("name", choices=tuple(PUBLISHED))
    parser.add_argument("--token", help="Hugging Face token; default: the one of `hf auth login` or HF_TOKEN")
    parser.add_argument("--to", type=user_path, default=REPOSITORY / "load" / "zero123", help="folder")
    parser.add_argument("--endpoint", help="another hub than https://huggingface.co (default: HF_ENDPOINT)")
    arguments = parser.parse_args(argv)
    print(f"Licence of {arguments.name}: {LICENCES[PUBLISHED[arguments.name].licence]}")
    try:
        print(download(arguments.name, arguments.to, arguments.token, arguments.endpoint))
    except UserError as error:
        print(f"zero123s download: {error}", file=sys.stderr)
        return 2
    return 0


def download(name: str, folder: Path, token: str | None = None, endpoint: str | None = None) -> Path:
    """Fetch the checkpoint `name`, resuming an interrupted download, and return its path.

    Raises CheckpointError: hub out of reach, licence not accepted, disk too small, or a file that is not the published
    one.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if PUBLISHED[name].url:
        return _download_from_site(PUBLISHED[name], folder, endpoint)
    # The base class of every error of the HTTP client that this version of huggingface_hub is built on.
    transport_error: type[Exception] = HfHubHTTPError.__bases__[0]  # type: ignore[assignment]
    published = PUBLISHED[name]
    page = f"https://huggingface.co/{published.repo}"
    try:
        url = hf_hub_url(published.repo, published.file, endpoint=endpoint)
        metadata = get_hf_file_metadata(url, token=token, endpoint=endpoint)
        _check_disk(folder, metadata.size or 0)
        path = Path(hf_hub_download(published.repo, published.file, local_dir=folder, token=token, endpoint=endpoint))
    except GatedRepoError as error:
        raise CheckpointError(
            f"The licence of {published.repo} must be accepted first: do so at {page}, then give a token "
            "(`hf auth login`, HF_TOKEN or --token)."
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise CheckpointError(_unreachable(page, published.file, folder)) from error
        raise CheckpointError(
            f"The hub has no {published.file} in {published.repo}, or the token is wrong: see {page}."
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(f"The hub refused {published.file}: {str(error).splitlines()[0]}") from error
    except (transport_error, ConnectionError, TimeoutError) as error:
        raise CheckpointError(_unreachable(page, published.file, folder)) from error
    except OSError as error:
        raise CheckpointError(f"Cannot write {published.file} to {folder}: {error}.") from error
    _check_content(path, metadata.size, metadata.etag)
    return path


def _download_from_site(published: Published, folder: Path, endpoint: str | None) -> Path:
    """Fetch a file by plain HTTP, resuming after the bytes that are already there."""
    url = (endpoint or published.site) + published.url
    path, partial = folder / published.file, folder / (published.file + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        have = partial.stat().st_size if partial.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=60) as answer:
            have = have if answer.status == http.client.PARTIAL_CONTENT else 0
            left = int(answer.headers.get("Content-Length", 0))
            _check_disk(folder, left)
            with partial.open("ab" if have else "wb") as file:
                while chunk := answer.read(1 << 20):
                    file.write(chunk)
                    _show_progress(file.tell(), have + left)
    except urllib.error.HTTPError as error:
        raise CheckpointError(f"{url} was refused: {error.code} {error.reason}.") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise CheckpointError(_unreachable(url, published.file, folder)) from error
    except OSError as error:
        raise CheckpointError(f"Cannot write {published.file} to {folder}: {error}.") from error
    if left and partial.stat().st_size < have + left:
        raise CheckpointError(_unreachable(url, published.file, folder))
    partial.replace(path)
    try:
        open_weights(path)  # the server states no checksum; a file cut short has no directory
    except CheckpointError as error:
        path.unlink()
        raise CheckpointError(f"{path.name} arrived damaged and was deleted: start the download again.") from error
    return path


def _show_progress(done: int, total: int) -> None:
    share = f"{100 * done / total:3.0f} %" if total else ""
    sys.stderr.write(f"\r{done / 1e9:.2f} GB {share} ")
    sys.stderr.flush()


def _unreachable(page: str, file: str, folder: Path) -> str:
    return (
        f"The server cannot be reached: check the network and try again (what is here is kept), or fetch {file} from "
        f"{page} with a browser and put it into {folder}."
    )


def _check_disk(folder: Path, needed: int) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise CheckpointError(f"{existing} has {free / 1e9:.2f} GB free, the checkpoint needs {needed / 1e9:.2f} GB.")


def _check_content(path: Path, size: int | None, etag: str | None) -> None:
    """Verify a file against the hub's hash; the tag of a large file is its SHA-256. A wrong file is deleted."""
    is_wrong = size is not None and path.stat().st_size != size
    if not is_wrong and etag and len(etag) == SHA256_LENGTH:
        is_wrong = sha256_of(path) != etag
    if is_wrong:
        path.unlink()
        raise CheckpointError(f"{path.name} arrived damaged and was deleted: start the download again.")
