"""SubjectAccessReview and its kin: what would the authorizers say?

Source: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from __future__ import annotations

from typing import Any

from haven.api.authorization import v1 as authorization
from haven.api.internalform import internal_form
from haven.apimachinery import fielderrors, meta, serialization
from haven.apimachinery.apierrors import BadRequest, GroupKind, Invalid
from haven.apimachinery.fielderrors import ErrorList, Path
from haven.apimachinery.selectors import (
    FieldRequirement,
    FieldSelector,
    SelectorError,
    label_key_errors,
    label_value_errors,
    parse_fields,
    parse_labels,
    requirement,
)
from haven.apiserver.authorization.interface import Attributes, Authorizer, Verdict, decide
from haven.apiserver.request import Request, UserInfo

__all__ = ["AccessReviews", "validate_review"]

_ONE_OF = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
_Spec = authorization.SubjectAccessReviewSpec | authorization.SelfSubjectAccessReviewSpec


class AccessReviews:
    """Answers reviews, from the union of authorizers that requests are judged by."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def create_subject_access_review(
        self, _request: Request, review: authorization.SubjectAccessReview
    ) -> authorization.SubjectAccessReview:
        """Return the review with the verdict on the user it names."""
        _refuse(validate_review(review))
        review.status = await self._status(_named_user(review.spec), review.spec)
        return review

    async def create_local_subject_access_review(
        self, _request: Request, namespace: str, review: authorization.LocalSubjectAccessReview
    ) -> authorization.LocalSubjectAccessReview:
        """Return the review with the verdict on the user it names, within one namespace."""
        if not review.metadata.namespace:
            review.metadata.namespace = namespace
        _refuse(validate_review(review))
        if review.metadata.namespace != namespace:
            raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
        review.status = await self._status(_named_user(review.spec), review.spec)
        return review

    async def create_self_subject_access_review(
        self, request: Request, review: authorization.SelfSubjectAccessReview
    ) -> authorization.SelfSubjectAccessReview:
        """Return the review with the verdict on the asker."""
        _refuse(validate_review(review))
        review.status = await self._status(request.user, review.spec)
        return review

    async def create_self_subject_rules_review(
        self, request: Request, review: authorization.SelfSubjectRulesReview
    ) -> authorization.SelfSubjectRulesReview:
        """Return the rules that apply to the asker in a namespace; what was sent is not repeated."""
        if not review.spec.namespace:
            raise BadRequest("no namespace on request")
        found = self._authorizer.rules_for(request.user, review.spec.namespace)
        return authorization.SelfSubjectRulesReview(
            status=authorization.SubjectRulesReviewStatus(
                resource_rules=[
                    authorization.ResourceRule(
                        verbs=rule.verbs,
                        api_groups=rule.api_groups,
                        resources=rule.resources,
                        resource_names=rule.resource_names,
                    )
                    for rule in found.rules
                    if rule.resources
                ],
                non_resource_rules=[
                    authorization.NonResourceRule(verbs=rule.verbs, non_resource_urls=rule.non_resource_urls)
                    for rule in found.rules
                    if rule.non_resource_urls
                ],
                incomplete=found.incomplete,
                evaluation_error=found.error,
            )
        )

    async def _status(self, user: UserInfo, spec: _Spec) -> authorization.SubjectAccessReviewStatus:
        attributes, errors = _attributes(user, spec)
        decision = await decide(self._authorizer, attributes)
        return authorization.SubjectAccessReviewStatus(
            allowed=decision.verdict is Verdict.ALLOW,
            denied=decision.verdict is Verdict.DENY,
            reason=decision.reason,
            evaluation_error="; ".join(filter(None, [decision.error, *errors])),
        )


def _named_user(spec: authorization.SubjectAccessReviewSpec) -> UserInfo:
    return UserInfo(
        name=spec.user,
        uid=spec.uid,
        groups=tuple(spec.groups),
        extra={key: tuple(values or ()) for key, values in spec.extra.items()},
    )


def _refuse(errors: ErrorList) -> None:
    if errors:
        # Upstream names no kind here: reviews are validated before theirs is filled in.
        raise Invalid.of(GroupKind("authorization.k8s.io", ""), "", errors)


def validate_review(
    review: authorization.SubjectAccessReview
    | authorization.LocalSubjectAccessReview
    | authorization.SelfSubjectAccessReview,
) -> ErrorList:
    """Return what is wrong with a review."""
    spec, path = review.spec, Path("spec")
    errors: ErrorList = []
    if spec.resource_attributes is not None and spec.non_resource_attributes is not None:
        text = "cannot be specified in combination with resourceAttributes"
        errors.append(
            fielderrors.invalid(path.child("nonResourceAttributes"), internal_form(spec.non_resource_attributes), text)
        )
    if spec.resource_attributes is None and spec.non_resource_attributes is None:
        errors.append(fielderrors.invalid(path.child("resourceAttributes"), None, _ONE_OF))
    if isinstance(spec, authorization.SubjectAccessReviewSpec) and not spec.user and not spec.groups:
        errors.append(fielderrors.invalid(path.child("user"), "", "at least one of user or group must be specified"))
    if spec.resource_attributes is not None:
        at = Path("spec.resourceAttributes")
        errors += _validate_fields(spec.resource_attributes.field_selector, at.child("fieldSelector"))
        errors += _validate_labels(spec.resource_attributes.label_selector, at.child("labelSelector"))
    errors += _validate_metadata(review)
    if isinstance(review, authorization.LocalSubjectAccessReview):
        errors += _validate_local(review)
    return errors


def _validate_metadata(review: Any) -> ErrorList:
    local = isinstance(review, authorization.LocalSubjectAccessReview)
    bare = serialization.copy(review.metadata)
    bare.managed_fields = []
    if local:
        bare.namespace = ""
    if bare == meta.ObjectMeta():
        return []
    text = "must be empty except for namespace" if local else "must be empty"
    return [fielderrors.invalid(Path("metadata"), review.metadata, text)]


def _validate_local(review: authorization.LocalSubjectAccessReview) -> ErrorList:
    errors: ErrorList = []
    of_resource, of_path = review.spec.resource_attributes, review.spec.non_resource_attributes
    if of_resource is not None and of_resource.namespace != review.metadata.namespace:
        path = Path("spec.resourceAttributes.namespace")
        errors.append(fielderrors.invalid(path, of_resource.namespace, "must match metadata.namespace"))
    if of_path is not None:
        path = Path("spec.nonResourceAttributes")
        errors.append(fielderrors.invalid(path, internal_form(of_path), "disallowed on this kind of request"))
    return errors


def _validate_selector(raw: str, count: int, path: Path) -> ErrorList:
    if raw and count:
        text = "may not specified at the same time as requirements"
        return [fielderrors.invalid(path.child("rawSelector"), raw, text)]
    if not raw and not count:
        text = f"when {path} is specified, requirements or rawSelector is required"
        return [fielderrors.required(path.child("requirements"), text)]
    return []


def _validate_fields(selector: authorization.FieldSelectorAttributes | None, path: Path) -> ErrorList:
    if selector is None:
        return []
    errors = _validate_selector(selector.raw_selector, len(selector.requirements), path)
    for index, item in enumerate(selector.requirements):
        at = path.child("requirements").index(index)
        if not item.key:
            errors.append(fielderrors.required(at.child("key"), "must be specified"))
        errors += _validate_count(item.operator, item.values, at)
    return errors


def _validate_labels(selector: authorization.LabelSelectorAttributes | None, path: Path) -> ErrorList:
    if selector is None:
        return []
    errors = _validate_selector(selector.raw_selector, len(selector.requirements), path)
    for index, item in enumerate(selector.requirements):
        at = path.child("requirements").index(index)
        errors += _validate_count(item.operator, item.values, at)
        errors += [fielderrors.invalid(at.child("key"), item.key, text) for text in label_key_errors(item.key)]
        for position, value in enumerate(item.values):
            where = at.child("values").index(position)
            errors += [fielderrors.invalid(where, value, text) for text in label_value_errors(value)]
    return errors


def _validate_count(operator: str, values: list[str], path: Path) -> ErrorList:
    if operator in ("In", "NotIn") and not values:
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        return [fielderrors.required(path.child("values"), text)]
    if operator in ("Exists", "DoesNotExist") and values:
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [fielderrors.forbidden(path.child("values"), text)]
    return []


def _attributes(user: UserInfo, spec: _Spec) -> tuple[Attributes, list[str]]:
    """Return the question that a review asks, and what of it could not be understood."""
    asked = spec.resource_attributes
    if asked is None:
        other = spec.non_resource_attributes
        assert other is not None, "validated before"
        return Attributes(user, other.verb, is_resource=False, path=other.path), []
    fields, field_error = _fields(asked.field_selector)
    labels, label_error = _labels(asked.label_selector)
    attributes = Attributes(
        user,
        asked.verb,
        namespace=asked.namespace,
        group=asked.group,
        version=asked.version or "*",
        resource=asked.resource,
        subresource=asked.subresource,
        name=asked.name,
        field_selector=fields,
        label_selector=labels,
    )
    errors = []
    for name, text, failed in (("fieldSelector", fields, field_error), ("labelSelector", labels, label_error)):
        if failed:
            partially = "partially " if text else ""
            errors.append(f"spec.resourceAttributes.{name} {partially}ignored due to parse error")
    return attributes, errors


def _fields(selector: authorization.FieldSelectorAttributes | None) -> tuple[str, bool]:
    """Return a field selector's text, and whether some of it had to be left out.

    Leaving out is safe: fewer conditions ask for more, so the verdict errs towards no.
    """
    if selector is None:
        return "", False
    if not selector.requirements:
        try:
            return str(parse_fields(selector.raw_selector)), False
        except SelectorError:
            return "", True
    understood = [
        FieldRequirement(item.key, "=" if item.operator == "In" else "!=", item.values[0])
        for item in selector.requirements
        if item.operator in ("In", "NotIn") and len(item.values) == 1
    ]
    return str(FieldSelector(understood)), len(understood) < len(selector.requirements)


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def _labels(selector: authorization.LabelSelectorAttributes | None) -> tuple[str, bool]:
    if selector is None:
        return "", False
    if not selector.requirements:
        try:
            return str(parse_labels(selector.raw_selector)), False
        except SelectorError:
            return "", True
    understood: list[str] = []
    for item in selector.requirements:
        operator = _OPERATORS.get(item.operator)
        if operator is None:
            continue
        try:
            understood.append(str(requirement(item.key, operator, item.values)))
        except SelectorError:
            continue
    return ",".join(understood), len(understood) < len(selector.requirements)
