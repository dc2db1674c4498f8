"""Scales: the same recipe with other sizes. `scale=tiny` lays a recipe's `scales: {tiny: {…}}` upon its sections.

The section is gone once a recipe is loaded: runs are named by what was resolved, however it was asked for.
"""

from typing import Any

from data.errors import InputError

SECTION = "scales"


def scaled(tree: dict[str, Any], name: str | None) -> dict[str, Any]:
    """`tree` without its section of scales, the scale `name` laid upon it. Raises InputError for an unknown one."""
    scales = tree.get(SECTION) or {}
    whole = {key: value for key, value in tree.items() if key != SECTION}
    if not isinstance(scales, dict) or not all(isinstance(scale, dict) for scale in scales.values()):
        raise InputError(f"{SECTION} is {scales!r}, expected {{name: {{section: {{key: value}}}}}}")
    if name is None:
        return whole
    if name not in scales:
        known = ", ".join(sorted(scales)) or "none: leave it out, or add a section `scales` to the recipe"
        raise InputError(f"scale={name!r} is no scale of this recipe; it has {known}")
    laid: dict[str, Any] = laid_upon(whole, scales[name])
    return laid


def laid_upon(below: Any, above: Any) -> Any:
    """Mappings key by key, all else as a whole; so is a mapping whose `kind` differs from the one below."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    if above.get("kind", below.get("kind")) != below.get("kind"):
        return above
    return {**below, **{key: laid_upon(below.get(key), value) for key, value in above.items()}}
