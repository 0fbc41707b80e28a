"""What is wrong with Jobs and CronJobs.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/ and the behaviour of
pkg/apis/batch/validation.
"""

from __future__ import annotations

import re

import msgspec

from haven.api.apps.validation import NO_MATCH, selector_or_none
from haven.api.batch import v1
from haven.api.batch.cron import schedule_complaint, time_zone_complaint
from haven.api.batch.failurepolicy import validate_pod_failure_policy, validate_success_policy
from haven.api.core import v1 as core_v1
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.core.validation.pod import PodOptions, pod_options, validate_pod_template_spec
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.validation.labels import selector_has_invalid_value, validate_label_selector
from haven.apimachinery.validation.names import byte_length, dns1123_label_errors, validate_domain_prefixed_path
from haven.apimachinery.validation.objectmeta import IMMUTABLE, validate_immutable, validate_not_negative

__all__ = [
    "CONTROLLER_UID",
    "JOB_NAME",
    "LEGACY_CONTROLLER_UID",
    "LEGACY_JOB_NAME",
    "is_condition_true",
    "validate_cron_job",
    "validate_cron_job_update",
    "validate_job",
    "validate_job_update",
]

LEGACY_CONTROLLER_UID = "controller-uid"
LEGACY_JOB_NAME = "job-name"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"

_SPEC = Path("spec")
_PARALLELISM_MAX_INDEXED = 100_000
_FAILED_INDEXES_MAX = 100_000
_COMPLETIONS_SOFT_MAX = 100_000
_HIGH_COMPLETIONS_MAX = 10_000
_MANAGED_BY_MAX = 63
_CRON_NAME_MAX = 52
_zone_part = re.compile(r"[A-Za-z.\-_0-9+]{1,14}").fullmatch


def is_condition_true(job: v1.Job, kind: str) -> bool:
    """Tell whether a Job has a condition."""
    return any(condition.type == kind and condition.status == "True" for condition in job.status.conditions)


def validate_job(job: v1.Job, old: v1.Job | None = None) -> ErrorList:
    """Check a Job; `old` is what it was before, if it is changed."""
    errors = validate_meta(job.metadata, namespaced=True)
    errors += _generated_selector(job, _needs_prefixed_labels(old))
    errors += _validate_selected_spec(job.spec, _SPEC, _options(old))
    spec = job.spec
    if spec.completion_mode == "Indexed" and spec.completions is not None and spec.completions > 0:
        hostname = f"{job.metadata.name}-{spec.completions - 1}"
        if dns1123_label_errors(hostname):
            words = f"will not able to create pod with invalid DNS label: {hostname}"
            errors.append(invalid(Path("metadata").child("name"), job.metadata.name, words))
    return errors


def _needs_prefixed_labels(old: v1.Job | None) -> bool:
    return old is None or {JOB_NAME, CONTROLLER_UID} <= old.spec.template.metadata.labels.keys()


def _options(old: v1.Job | None) -> PodOptions:
    if old is None:
        return pod_options(None, is_pod=False)
    options = pod_options(old.spec.template.spec, is_pod=False)
    if selector_has_invalid_value(old.spec.selector) and not options.allow_invalid_selector:
        values = {name: getattr(options, name) for name in PodOptions.__slots__}
        options = PodOptions(**(values | {"allow_invalid_selector": True}))
    return options


def _has_label(metadata: meta.ObjectMeta, path: Path, key: str, value: str) -> ErrorList:
    place = path.child("labels").key(key)
    found = metadata.labels.get(key)
    if found is None:
        return [required(place, f"must be '{value}'")]
    return [] if found == value else [invalid(place, metadata.labels, f"must be '{value}'")]


def _generated_selector(job: v1.Job, prefixed: bool) -> ErrorList:
    spec = job.spec
    if spec.manual_selector or spec.selector is None:
        return []
    errors: ErrorList = []
    uid, name = job.metadata.uid, job.metadata.name
    if not uid:
        errors.append(required(Path("metadata").child("uid"), ""))
    template, path = spec.template.metadata, Path("spec", "template", "metadata")
    expected = {LEGACY_CONTROLLER_UID: str(uid), LEGACY_JOB_NAME: name}
    if prefixed:
        expected |= {CONTROLLER_UID: str(uid), JOB_NAME: name}
    for key, value in expected.items():
        errors += _has_label(template, path, key, value)
    selector = selector_or_none(spec.selector)
    if selector is not None and not selector.matches(expected):
        errors.append(invalid(_SPEC.child("selector"), spec.selector, "`selector` not auto-generated"))
    return errors


def _validate_selected_spec(spec: v1.JobSpec, path: Path, options: PodOptions) -> ErrorList:
    errors = _validate_spec(spec, path, options)
    if spec.selector is None:
        errors.append(required(path.child("selector"), ""))
    else:
        errors += validate_label_selector(
            spec.selector, path.child("selector"), allow_invalid_values=options.allow_invalid_selector
        )
    selector = selector_or_none(spec.selector)
    labels = spec.template.metadata.labels
    if selector is not None and not selector.matches(labels):
        errors.append(invalid(path.child("template", "metadata", "labels"), given(labels), NO_MATCH))
    return errors


def _validate_spec(spec: v1.JobSpec, path: Path, options: PodOptions) -> ErrorList:
    errors: ErrorList = []
    for name, value in (
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ):
        if value is not None:
            errors += validate_not_negative(value, path.child(name))
    if spec.max_failed_indexes is not None and spec.backoff_limit_per_index is None:
        errors.append(required(path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
    if spec.managed_by is not None:
        errors += validate_domain_prefixed_path(spec.managed_by, path.child("managedBy"))
        if byte_length(spec.managed_by) > _MANAGED_BY_MAX:
            errors.append(too_long(path.child("managedBy"), "", _MANAGED_BY_MAX))
    mode = spec.completion_mode
    if mode is not None and mode not in ("NonIndexed", "Indexed"):
        errors.append(not_supported(path.child("completionMode"), mode, ("NonIndexed", "Indexed")))
    if mode == "Indexed":
        errors += _indexed(spec, path)
    if mode is None or mode == "NonIndexed":
        for name, value in (
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ):
            if value is not None:
                errors.append(invalid(path.child(name), value, "requires indexed completion mode"))
    if spec.pod_failure_policy is not None:
        errors += validate_pod_failure_policy(spec, spec.pod_failure_policy, path.child("podFailurePolicy"))
    if spec.success_policy is not None:
        place = path.child("successPolicy")
        if mode != "Indexed":
            words = "requires indexed completion mode"
            errors.append(invalid(place, internal_form(spec.success_policy), words))
        else:
            errors += validate_success_policy(spec, spec.success_policy, place)
    errors += _replacement_policy(spec, path.child("podReplacementPolicy"))
    errors += validate_pod_template_spec(spec.template, path.child("template"), options)
    return errors + _restart_policy(spec, path.child("template", "spec", "restartPolicy"))


def _restart_policy(spec: v1.JobSpec, path: Path) -> ErrorList:
    policy = spec.template.spec.restart_policy
    if policy in ("Always", ""):
        return [required(path, 'valid values: "OnFailure", "Never"')]
    if policy not in ("OnFailure", "Never"):
        return [not_supported(path, policy, ("OnFailure", "Never"))]
    if spec.pod_failure_policy is not None and policy != "Never":
        return [invalid(path, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def _indexed(spec: v1.JobSpec, path: Path) -> ErrorList:
    errors: ErrorList = []
    completions, parallelism, failed = spec.completions, spec.parallelism, spec.max_failed_indexes
    if completions is None:
        errors.append(required(path.child("completions"), "when completion mode is Indexed"))
    if parallelism is not None and parallelism > _PARALLELISM_MAX_INDEXED:
        words = f"must be less than or equal to {_PARALLELISM_MAX_INDEXED} when completion mode is Indexed"
        errors.append(invalid(path.child("parallelism"), parallelism, words))
    if completions is not None and failed is not None and failed > completions:
        errors.append(invalid(path.child("maxFailedIndexes"), failed, "must be less than or equal to completions"))
    if failed is not None and failed > _FAILED_INDEXES_MAX:
        words = f"must be less than or equal to {_FAILED_INDEXES_MAX}"
        errors.append(invalid(path.child("maxFailedIndexes"), failed, words))
    if completions is None or completions <= _COMPLETIONS_SOFT_MAX or spec.backoff_limit_per_index is None:
        return errors
    words = (
        f"must be less than or equal to {_HIGH_COMPLETIONS_MAX} when completions are above {_COMPLETIONS_SOFT_MAX} "
        "and used with backoff limit per index"
    )
    if failed is None:
        needed = f"must be specified when completions is above {_COMPLETIONS_SOFT_MAX}"
        errors.append(required(path.child("maxFailedIndexes"), needed))
    if parallelism is not None and parallelism > _HIGH_COMPLETIONS_MAX:
        errors.append(invalid(path.child("parallelism"), parallelism, words))
    if failed is not None and failed > _HIGH_COMPLETIONS_MAX:
        errors.append(invalid(path.child("maxFailedIndexes"), failed, words))
    return errors


def _replacement_policy(spec: v1.JobSpec, path: Path) -> ErrorList:
    policy = spec.pod_replacement_policy
    if policy is None:
        return []
    allowed = ("Failed", "TerminatingOrFailed") if spec.pod_failure_policy is None else ("Failed",)
    return [] if policy in allowed else [not_supported(path, policy, allowed)]


def validate_job_update(new: v1.Job, old: v1.Job) -> ErrorList:
    """Check a changed Job."""
    errors = validate_job(new, old)
    errors += validate_meta_update(new.metadata, old.metadata)
    spec, before = new.spec, old.spec
    errors += _validate_selected_spec(spec, _SPEC, _options(old))
    errors += _completions(spec, before)
    errors += validate_immutable(spec.selector, before.selector, _SPEC.child("selector"))
    errors += _template_update(new, old)
    errors += validate_immutable(spec.completion_mode, before.completion_mode, _SPEC.child("completionMode"))
    if spec.pod_failure_policy != before.pod_failure_policy:
        shown = internal_form(spec.pod_failure_policy, "*PodFailurePolicy", "batch")
        errors.append(invalid(_SPEC.child("podFailurePolicy"), shown, IMMUTABLE))
    limits = (spec.backoff_limit_per_index, before.backoff_limit_per_index)
    errors += validate_immutable(*limits, _SPEC.child("backoffLimitPerIndex"))
    errors += validate_immutable(spec.managed_by, before.managed_by, _SPEC.child("managedBy"))
    if spec.success_policy != before.success_policy:
        shown = internal_form(spec.success_policy, "*SuccessPolicy", "batch")
        errors.append(invalid(_SPEC.child("successPolicy"), shown, IMMUTABLE))
    return errors


def _completions(spec: v1.JobSpec, before: v1.JobSpec) -> ErrorList:
    path = _SPEC.child("completions")
    if spec.completion_mode != "Indexed":
        return validate_immutable(spec.completions, before.completions, path)
    if spec.completions is None or spec.completions in (before.completions, spec.parallelism):
        return []
    return [invalid(path, spec.completions, "can only be modified in tandem with spec.parallelism")]


def _template_update(new: v1.Job, old: v1.Job) -> ErrorList:
    suspended = bool(old.spec.suspend)
    rests = old.status.start_time is None or is_condition_true(old, "Suspended")
    is_mutable = suspended and rests and old.status.active == 0
    template, before = new.spec.template, old.spec.template
    if is_mutable:
        before = _with_scheduling(before, template)
    if not suspended or not is_mutable:
        if template == before:
            return []
        return [invalid(_SPEC.child("template"), internal_form(template), IMMUTABLE)]
    pod = msgspec.structs.replace(
        before.spec,
        containers=_with_resources(before.spec.containers or [], template.spec.containers or []),
        init_containers=_with_resources(before.spec.init_containers, template.spec.init_containers),
    )
    if template.spec == pod:
        return []
    return [invalid(_SPEC.child("template.spec"), internal_form(template.spec), IMMUTABLE)]


def _with_scheduling(old: core_v1.PodTemplateSpec, new: core_v1.PodTemplateSpec) -> core_v1.PodTemplateSpec:
    """Return the old template with what a suspended Job may change: where its Pods run."""
    affinity = old.spec.affinity
    if affinity is None:
        if new.spec.affinity is not None:
            affinity = core_v1.Affinity(node_affinity=new.spec.affinity.node_affinity)
    elif new.spec.affinity is None:
        affinity = msgspec.structs.replace(affinity, node_affinity=None)
        if affinity == core_v1.Affinity():
            affinity = None
    else:
        affinity = msgspec.structs.replace(affinity, node_affinity=new.spec.affinity.node_affinity)
    spec = msgspec.structs.replace(
        old.spec,
        affinity=affinity,
        node_selector=new.spec.node_selector,
        tolerations=new.spec.tolerations,
        scheduling_gates=new.spec.scheduling_gates,
    )
    metadata = msgspec.structs.replace(old.metadata, annotations=new.metadata.annotations, labels=new.metadata.labels)
    return core_v1.PodTemplateSpec(metadata=metadata, spec=spec)


def _with_resources(old: list[core_v1.Container], new: list[core_v1.Container]) -> list[core_v1.Container]:
    if len(old) != len(new):
        return old
    return [
        msgspec.structs.replace(before, resources=now.resources) if before.name == now.name else before
        for before, now in zip(old, new, strict=True)
    ]


def validate_cron_job(cron_job: v1.CronJob) -> ErrorList:
    """Check a CronJob; its name leaves room for what the controller adds."""
    errors = validate_meta(cron_job.metadata, namespaced=True)
    errors += _cron_job_spec(cron_job.spec, None, pod_options(None, is_pod=False))
    if byte_length(cron_job.metadata.name) > _CRON_NAME_MAX:
        words = f"must be no more than {_CRON_NAME_MAX} characters"
        errors.append(invalid(Path("metadata").child("name"), cron_job.metadata.name, words))
    return errors


def validate_cron_job_update(new: v1.CronJob, old: v1.CronJob) -> ErrorList:
    """Check a changed CronJob."""
    errors = validate_meta_update(new.metadata, old.metadata)
    options = pod_options(old.spec.job_template.spec.template.spec, is_pod=False)
    return errors + _cron_job_spec(new.spec, old.spec, options)


def _cron_job_spec(spec: v1.CronJobSpec, before: v1.CronJobSpec | None, options: PodOptions) -> ErrorList:
    errors: ErrorList = []
    path = _SPEC.child("schedule")
    if not spec.schedule:
        errors.append(required(path, ""))
    else:
        if complaint := schedule_complaint(spec.schedule):
            errors.append(invalid(path, spec.schedule, complaint))
        if "TZ" in spec.schedule:
            if before is None or "TZ" not in before.schedule:
                words = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
                errors.append(invalid(path, spec.schedule, words))
            elif spec.time_zone is not None:
                words = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
                errors.append(invalid(path, spec.schedule, words))
    if spec.starting_deadline_seconds is not None:
        errors += validate_not_negative(spec.starting_deadline_seconds, _SPEC.child("startingDeadlineSeconds"))
    if before is None or before.time_zone != spec.time_zone:
        errors += _time_zone(spec.time_zone, _SPEC.child("timeZone"))
    policy = spec.concurrency_policy
    if not policy:
        errors.append(required(_SPEC.child("concurrencyPolicy"), ""))
    elif policy not in ("Allow", "Forbid", "Replace"):
        errors.append(not_supported(_SPEC.child("concurrencyPolicy"), policy, ("Allow", "Forbid", "Replace")))
    template = _SPEC.child("jobTemplate")
    job = spec.job_template.spec
    errors += _validate_spec(job, template.child("spec"), options)
    if job.selector is not None:
        words = "`selector` will be auto-generated"
        errors.append(invalid(template.child("spec", "selector"), job.selector, words))
    if job.manual_selector:
        errors.append(not_supported(template.child("spec", "manualSelector"), True, ("nil", "false")))
    for name, value in (
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ):
        if value is not None:
            errors += validate_not_negative(value, _SPEC.child(name))
    return errors


def _time_zone(name: str | None, path: Path) -> ErrorList:
    if name is None:
        return []
    if not name:
        return [invalid(path, name, "timeZone must be nil or non-empty string")]
    errors: ErrorList = []
    for part in name.split("/"):
        if part in (".", "..") or part.startswith("-") or not _zone_part(part):
            errors.append(invalid(path, name, f"unknown time zone {name}"))
    if errors:
        return errors
    if name.lower() == "local":
        words = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid(path, name, words)]
    if complaint := time_zone_complaint(name):
        errors.append(invalid(path, name, complaint))
    return errors
