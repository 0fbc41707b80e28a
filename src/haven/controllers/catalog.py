"""Every controller: its name, identity, event component, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from haven.controllers.actions import Controller, Wiring
from haven.controllers.attachdetach import AttachDetachController
from haven.controllers.bootstraptokens import BootstrapSigner, TokenCleaner
from haven.controllers.certificaterequests import RequestApprover, RequestCleaner, RequestSigner, Sign
from haven.controllers.classprotection import AttributesClassProtectionController
from haven.controllers.clusterroleaggregation import ClusterRoleAggregationController
from haven.controllers.cronjob import CronJobController
from haven.controllers.daemonset import DaemonSetController
from haven.controllers.deployment import DeploymentController
from haven.controllers.disruption import DisruptionController
from haven.controllers.endpoints import EndpointsController
from haven.controllers.endpointslice import EndpointSliceController
from haven.controllers.endpointslicemirroring import EndpointSliceMirroringController
from haven.controllers.ephemeralvolume import EphemeralVolumeController
from haven.controllers.garbagecollector import GarbageCollector
from haven.controllers.horizontalpodautoscaler import HorizontalPodAutoscalerController
from haven.controllers.hostpathdriver import delete_directory
from haven.controllers.job import JobController
from haven.controllers.leaderelection import LeaderElectionController, LeaseCandidateCleaner
from haven.controllers.namespace import NamespaceController
from haven.controllers.nodeipam import NodeIPAMController
from haven.controllers.nodelifecycle import NodeLifecycleController
from haven.controllers.podgc import PodGarbageCollector
from haven.controllers.protection import ClaimProtectionController, VolumeProtectionController
from haven.controllers.replicaset import ReplicaSetController
from haven.controllers.replicationcontroller import ReplicationControllerController
from haven.controllers.resourceclaim import ResourceClaimController
from haven.controllers.resourcequota import ResourceQuotaController
from haven.controllers.rootca import RootCAPublisher
from haven.controllers.serviceaccount import ServiceAccountController
from haven.controllers.serviceaccounttokens import LegacyTokenCleaner, SignToken, TokensController
from haven.controllers.servicecidr import ServiceCIDRController
from haven.controllers.settings import Settings
from haven.controllers.statefulset import StatefulSetController
from haven.controllers.tainteviction import TaintEvictionController
from haven.controllers.ttl import TTLController
from haven.controllers.ttlafterfinished import TTLAfterFinishedController
from haven.controllers.validatingadmissionpolicystatus import ValidatingAdmissionPolicyStatusController
from haven.controllers.volumebinder import VolumeBinder
from haven.controllers.volumeexpand import VolumeExpandController

__all__ = ["API_SERVER", "MANAGER", "Entry", "catalog"]

MANAGER = ""
"""The identity of the controller manager itself, system:kube-controller-manager: no service account has its rights."""
API_SERVER = "system:apiserver"
"""The identity of the API server, which does what has to do with any namespace's leaders."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One controller: upstream's name, service account (or MANAGER), and source of its Events (`component`)."""

    name: str
    user: str
    component: str
    make: Callable[[Wiring], Controller]


def catalog(settings: Settings) -> list[Entry]:
    """Return all controllers that these settings allow, in the order in which they start.

    The garbage collector comes last: it watches everything, and uses the caches that others have already.
    """
    entries = [
        Entry("namespace", "namespace-controller", "namespace-controller", NamespaceController),
        Entry("serviceaccount", "service-account-controller", "service-account-controller", ServiceAccountController),
        Entry("deployment", "deployment-controller", "deployment-controller", DeploymentController),
        Entry("replicaset", "replicaset-controller", "replicaset-controller", ReplicaSetController),
        Entry(
            "replicationcontroller",
            "replication-controller",
            "replication-controller",
            ReplicationControllerController,
        ),
        Entry("daemonset", "daemon-set-controller", "daemonset-controller", DaemonSetController),
        Entry("statefulset", "statefulset-controller", "statefulset-controller", StatefulSetController),
        Entry("job", "job-controller", "job-controller", JobController),
        Entry("cronjob", "cronjob-controller", "cronjob-controller", CronJobController),
        Entry(
            "ttl-after-finished",
            "ttl-after-finished-controller",
            "ttl-after-finished-controller",
            TTLAfterFinishedController,
        ),
        Entry("resourceclaim", "resource-claim-controller", "resource_claim", ResourceClaimController),
        Entry("disruption", "disruption-controller", "controllermanager", DisruptionController),
        Entry("resourcequota", "resourcequota-controller", "resourcequota-controller", ResourceQuotaController),
        Entry(
            "node-lifecycle",
            "node-controller",
            "node-controller",
            lambda wiring: NodeLifecycleController(wiring, grace_seconds=settings.node_monitor_grace_seconds),
        ),
        Entry("taint-eviction", "node-controller", "taint-eviction-controller", TaintEvictionController),
        Entry("ttl", "ttl-controller", "ttl-controller", TTLController),
        Entry(
            "validatingadmissionpolicy-status",
            "validatingadmissionpolicy-status-controller",
            "validatingadmissionpolicy-status",
            ValidatingAdmissionPolicyStatusController,
        ),
        Entry(
            "clusterrole-aggregation",
            "clusterrole-aggregation-controller",
            "clusterrole-aggregation-controller",
            ClusterRoleAggregationController,
        ),
        Entry(
            "persistentvolumeclaim-protection",
            "pvc-protection-controller",
            "pvc-protection-controller",
            ClaimProtectionController,
        ),
        Entry(
            "persistentvolume-protection",
            "pv-protection-controller",
            "pv-protection-controller",
            VolumeProtectionController,
        ),
        Entry(
            "volumeattributesclass-protection",
            "volumeattributesclass-protection-controller",
            "volumeattributesclass-protection-controller",
            AttributesClassProtectionController,
        ),
        Entry("endpoints", "endpoint-controller", "endpoint-controller", EndpointsController),
        Entry("endpointslice", "endpointslice-controller", "endpoint-slice-controller", EndpointSliceController),
        Entry(
            "endpointslice-mirroring",
            "endpointslicemirroring-controller",
            "endpoint-slice-mirroring-controller",
            EndpointSliceMirroringController,
        ),
        Entry("service-cidr", "service-cidrs-controller", "service-cidrs-controller", ServiceCIDRController),
        Entry(
            "pod-garbage-collector",
            "pod-garbage-collector",
            "pod-garbage-collector",
            lambda wiring: PodGarbageCollector(wiring, finished_pods_max=settings.finished_pods_max),
        ),
    ]
    if settings.root_ca_pem:
        entries.append(
            Entry(
                "root-ca-certificate-publisher",
                "root-ca-cert-publisher",
                "root-ca-cert-publisher",
                lambda wiring: RootCAPublisher(wiring, root_ca_pem=settings.root_ca_pem),
            )
        )
    if settings.cluster_networks:
        entries.append(
            Entry(
                "node-ipam",
                "node-controller",
                "cidrAllocator",
                lambda wiring: NodeIPAMController(wiring, cluster_networks=settings.cluster_networks),
            )
        )
    entries += [
        Entry(
            "persistentvolume-binder",
            "persistent-volume-binder",
            "persistentvolume-controller",
            lambda wiring: VolumeBinder(wiring, delete_directory=delete_directory),
        ),
        Entry(
            "persistentvolume-attach-detach",
            "attachdetach-controller",
            "attachdetach-controller",
            AttachDetachController,
        ),
        Entry("persistentvolume-expander", "expand-controller", "volume_expand", VolumeExpandController),
        Entry("ephemeral-volume", "ephemeral-volume-controller", "ephemeral_volume", EphemeralVolumeController),
    ]
    entries += _certificates(settings)
    entries += _tokens(settings)
    entries.append(
        Entry(
            "horizontal-pod-autoscaler",
            "horizontal-pod-autoscaler",
            "horizontal-pod-autoscaler",
            HorizontalPodAutoscalerController,
        )
    )
    entries += _gated(settings)
    if settings.coordinated_leader_election:
        name = "leader-election-controller"
        entries.append(Entry(name, API_SERVER, name, LeaderElectionController))
        entries.append(Entry("leasecandidate-cleaner", API_SERVER, name, LeaseCandidateCleaner))
    entries.append(
        Entry("garbage-collector", "generic-garbage-collector", "garbage-collector-controller", GarbageCollector)
    )
    return entries


def _gated(settings: Settings) -> list[Entry]:
    """Return the controllers of features, and those that run only when asked for; what is off is not imported."""
    features, entries = settings.features, []
    if "DRADeviceTaints" in features:
        from haven.controllers.devicetainteviction import DeviceTaintEvictionController

        with_rules = "DRADeviceTaintRules" in features
        user = "device-taint-eviction-controller"
        entries.append(
            Entry(
                "device-taint-eviction",
                user,
                "device-taint-eviction",
                lambda wiring: DeviceTaintEvictionController(wiring, with_rules=with_rules),
            )
        )
    if "ClusterTrustBundle" in features and settings.root_ca_pem:
        from haven.controllers.trustbundles import ServingTrustBundlePublisher

        user = "kube-apiserver-serving-clustertrustbundle-publisher"
        pem = settings.root_ca_pem
        entries.append(Entry(user, user, user, lambda wiring: ServingTrustBundlePublisher(wiring, root_ca_pem=pem)))
    if "PodCertificateRequest" in features:
        from haven.controllers.trustbundles import PodCertificateRequestCleaner

        user = "podcertificaterequestcleaner"
        entries.append(Entry("podcertificaterequest-cleaner", user, user, PodCertificateRequestCleaner))
    if "DRAResourcePoolStatus" in features:
        from haven.controllers.resourcepoolstatusrequest import ResourcePoolStatusRequestController

        user = "resourcepoolstatusrequest-controller"
        entries.append(Entry("resourcepoolstatusrequest", user, user, ResourcePoolStatusRequestController))
    if settings.is_enabled("selinux-warning", by_default=False):
        from haven.controllers.selinuxwarning import SELinuxWarningController

        user = "selinux-warning-controller"
        entries.append(Entry("selinux-warning", user, "selinux_warning", SELinuxWarningController))
    if "GenericWorkload" in features:
        from haven.controllers.podgroupprotection import PodGroupProtectionController

        user = "podgroup-protection-controller"
        entries.append(Entry("podgroup-protection", user, user, PodGroupProtectionController))
    if "StorageVersionAPI" in features:
        from haven.controllers.storageversiongc import StorageVersionGarbageCollector

        user = "storage-version-garbage-collector"
        entries.append(Entry(user, user, user, StorageVersionGarbageCollector))
    if "StorageVersionMigrator" in features:
        from haven.controllers.storagemigration import StorageVersionMigrator

        user = "storage-version-migrator-controller"
        entries.append(Entry("storage-version-migrator", user, user, StorageVersionMigrator))
    return entries


def _certificates(settings: Settings) -> list[Entry]:
    user = "certificate-controller"
    entries = [
        Entry("certificatesigningrequest-approving", user, user, RequestApprover),
        Entry("certificatesigningrequest-cleaner", user, user, RequestCleaner),
    ]
    if settings.sign_certificate is not None:
        sign: Sign = settings.sign_certificate
        entries.append(
            Entry(
                "certificatesigningrequest-signing",
                user,
                user,
                lambda wiring: RequestSigner(wiring, sign=sign, life_seconds=settings.certificate_seconds),
            )
        )
    return entries


def _tokens(settings: Settings) -> list[Entry]:
    cleaner = "legacy-service-account-token-cleaner"
    entries = [Entry("legacy-serviceaccount-token-cleaner", cleaner, cleaner, LegacyTokenCleaner)]
    if settings.sign_token is not None:
        sign: SignToken = settings.sign_token
        entries.append(
            Entry(
                "serviceaccount-token",
                MANAGER,
                "serviceaccount-token-controller",
                lambda wiring: TokensController(wiring, sign=sign, root_ca_pem=settings.root_ca_pem),
            )
        )
    if settings.is_enabled("bootstrap-signer", by_default=settings.sign_cluster_info):
        entries.append(Entry("bootstrap-signer", "bootstrap-signer", "bootstrap-signer", BootstrapSigner))
    if settings.is_enabled("token-cleaner", by_default=settings.clean_bootstrap_tokens):
        entries.append(Entry("token-cleaner", "token-cleaner", "token-cleaner", TokenCleaner))
    return entries
