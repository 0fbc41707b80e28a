"""Which nodes a Pod wants: nodeSelector and node affinity.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from __future__ import annotations

from collections.abc import Mapping

from haven.api.core import v1 as core

__all__ = ["matches_required", "matches_requirement", "matches_selector", "matches_term"]


def matches_requirement(requirement: core.NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    """Tell whether labels (or fields, given as a mapping) meet one requirement; Gt and Lt compare integers."""
    present = requirement.key in labels
    match requirement.operator:
        case "In":
            return present and labels[requirement.key] in requirement.values
        case "NotIn":
            return not present or labels[requirement.key] not in requirement.values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case "Gt" | "Lt":
            if not present or len(requirement.values) != 1:
                return False
            try:
                found, bound = int(labels[requirement.key]), int(requirement.values[0])
            except ValueError:
                return False
            return found > bound if requirement.operator == "Gt" else found < bound
    return False


def matches_term(term: core.NodeSelectorTerm, node_name: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a node meets every requirement of a term; an empty term matches no node."""
    if not term.match_expressions and not term.match_fields:
        return False
    return all(matches_requirement(item, labels) for item in term.match_expressions) and all(
        matches_requirement(item, {"metadata.name": node_name}) for item in term.match_fields
    )


def matches_selector(selector: core.NodeSelector, node_name: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a node meets one of the selector's terms."""
    return any(matches_term(term, node_name, labels) for term in selector.node_selector_terms or ())


def matches_required(spec: core.PodSpec, node_name: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a node meets a Pod's nodeSelector and required node affinity."""
    if any(labels.get(key) != value for key, value in spec.node_selector.items()):
        return False
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return required is None or matches_selector(required, node_name, labels)
