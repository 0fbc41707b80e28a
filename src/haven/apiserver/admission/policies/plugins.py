"""Both plugins and what they know, put together."""

from __future__ import annotations

from haven.api.admissionregistration import v1
from haven.apiserver.admission.interface import Objects, Plugin
from haven.apiserver.admission.policies.hooks import Hooks
from haven.apiserver.admission.policies.mutating import (
    CompiledMutations,
    MutatingAdmissionPolicy,
    MutatingHooks,
    compile_mutations,
)
from haven.apiserver.admission.policies.params import StoredParameters
from haven.apiserver.admission.policies.patches import ServedSchemas
from haven.apiserver.admission.policies.validating import (
    CompiledPolicy,
    ValidatingAdmissionPolicy,
    ValidatingHooks,
    compile_policy,
)
from haven.apiserver.admission.versions import ServedVersions
from haven.apiserver.authorization.interface import Authorizer

__all__ = ["PolicyAdmission"]


class PolicyAdmission:
    """The plugins, and the observers that keep them informed of policies and bindings."""

    def __init__(self, objects: Objects, versions: ServedVersions, authorizer: Authorizer) -> None:
        validating: ValidatingHooks = Hooks[
            v1.ValidatingAdmissionPolicy, v1.ValidatingAdmissionPolicyBinding, CompiledPolicy
        ](v1.ValidatingAdmissionPolicy, v1.ValidatingAdmissionPolicyBinding, compile_policy)
        mutating: MutatingHooks = Hooks[
            v1.MutatingAdmissionPolicy, v1.MutatingAdmissionPolicyBinding, CompiledMutations
        ](v1.MutatingAdmissionPolicy, v1.MutatingAdmissionPolicyBinding, compile_mutations)
        self.observers = (validating, mutating)
        parameters = StoredParameters(objects, versions)
        self.validating: Plugin = ValidatingAdmissionPolicy(validating, objects, versions, parameters, authorizer)
        self.mutating: Plugin = MutatingAdmissionPolicy(
            mutating, objects, versions, parameters, ServedSchemas(versions), authorizer
        )
