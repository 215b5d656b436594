"""A model as a repository on the Hugging Face hub."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastbert.system.errors import InputError


def upload(bert: Any, directory: Path, repository: str, *, public: bool = False) -> str:
    """Upload a model's files and its card; nothing else of its directory.

    Args:
        bert: a :class:`fastbert.bert.Bert`, whose ``save`` writes the files.
        directory: of the model, for its README.md.
        repository: OWNER/NAME; made if it does not exist, private unless ``public``.

    Returns:
        The address of the commit.

    Raises:
        InputError: huggingface_hub is missing, there is no token, or the hub refuses.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise InputError("huggingface_hub is missing. Try: pip install 'fastbert[hub]'") from None
    token = hub.get_token()
    if token is None:
        raise InputError("there is no token for the hub. Try: HF_TOKEN, or hf auth login")
    if repository.count("/") != 1:
        raise InputError(f"{repository}: expected OWNER/NAME. Try: your name on the hub before it")
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    with tempfile.TemporaryDirectory() as folder:
        bert.save(folder)
        if (directory / "README.md").is_file():
            shutil.copyfile(directory / "README.md", Path(folder) / "README.md")
        try:
            api.create_repo(repository, private=not public, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload from fastbert")
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{repository}: the hub refuses ({reason}). Try: the name and the token again") from None
        except Exception as error:  # the connection: the class depends on the HTTP library of huggingface_hub
            if not type(error).__module__.startswith(("httpx", "requests")):
                raise
            raise InputError(f"{repository}: the hub is not reachable ({error}). Try: again later") from None
    return str(commit.commit_url)
