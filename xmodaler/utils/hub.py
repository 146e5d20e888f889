"""Files of the Hugging Face hub."""

from collections.abc import Sequence


class NotOnHubError(Exception):
    """Files of the hub are neither in its cache nor to be had; the message says why."""


def hub_files(name: str, patterns: Sequence[str]) -> str:
    """A folder with files of a model of the hub, from its cache or else the network.

    Args:
        name: Such as ``bert-base-uncased`` or ``owner/model``.
        patterns: Names of the wanted files; ``*`` stands for anything.

    Raises:
        NotOnHubError: They can be had from neither.
    """
    from huggingface_hub import HfApi, snapshot_download

    wanted = {"repo_id": name, "allow_patterns": list(patterns)}
    try:
        return snapshot_download(**wanted, local_files_only=True)
    except Exception:  # not in the cache, or no name that the hub would take
        try:
            # One question without retries: a machine without network must not wait for it.
            HfApi().model_info(name, timeout=10)
            return snapshot_download(**wanted)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NotOnHubError(reason[:120]) from None
