"""Label selectors as upstream's messages show them: the way Go prints the struct."""

from __future__ import annotations

from haven.apimachinery import meta

__all__ = ["go_selector"]


def go_selector(selector: meta.LabelSelector | None) -> str:
    """Return the text of a selector."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted(selector.match_labels.items()))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{each.key},Operator:{each.operator},Values:[{' '.join(each.values)}],}},"
        for each in selector.match_expressions
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
