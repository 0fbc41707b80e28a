"""Admission policies: ValidatingAdmissionPolicy and MutatingAdmissionPolicy, and expressions over a request."""
