"""Weights with the names and shapes of a model that are another's, known by what else there is to know of a file.

timm's `efficientnet_lite0` and `tf_efficientnet_lite0` differ by padding and an epsilon alone, `resnet50` and
`resnetblur50` by a filter without weights: an import as the wrong one would give other logits without an error.
"""

from engine.errors import InputError, problem
from engine.importers.catalogue import Variant
from engine.importers.variants import VARIANTS
from engine.importers.weights_file import WeightsFile

SAME_NETWORK = {
    "deit_small_patch16_224": "vit_small_patch16_224",
    "deit_base_patch16_224": "vit_base_patch16_224",
}
"""timm's names of architectures that are another one's, trained otherwise."""


def check_identity(variant: Variant, file: WeightsFile, digest: str) -> None:
    """Raises InputError if config.json names another architecture, or the hash is that of another model's file."""
    own = _architecture(variant)
    config = file.about.get("config")
    named = config.get("architecture") if isinstance(config, dict) else None
    if own and isinstance(named, str) and SAME_NETWORK.get(named, named) != own:
        fitting = [other.name for other in VARIANTS.values() if _architecture(other) == named]
        remedy = f"Import it as {fitting[0]}." if fitting else "Choose one that `engine families` lists."
        got, rule = f"the architecture {named[:80]!r} in its config.json", f"{own}, as {variant.name} is"
        raise InputError(problem(str(file.path), got, rule, remedy))
    others = [other for other in VARIANTS.values() if _is_of(other, digest)]
    if others and not _is_of(variant, digest):
        got, rule = f"the published file of {others[0].name}", f"weights of {variant.name}"
        raise InputError(problem(str(file.path), got, rule, f"Import it as {others[0].name}."))


def _architecture(variant: Variant) -> str | None:
    """timm's name of the network: resnet50 of timm/resnet50.tv_in1k."""
    return variant.hub.rpartition("/")[2].partition(".")[0] if variant.hub else None


def _is_of(variant: Variant, digest: str) -> bool:
    """Whether a hash is that of a file that was published of a model; torch publishes the first digits."""
    hashes = (file.hash for file in (variant.with_top, variant.without_top) if file and file.hash)
    return bool(digest) and any(digest.startswith(known) for known in hashes)
