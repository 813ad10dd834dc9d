//! A whole cluster: a real etcd, kube-apiserver and kube-scheduler, with Berth's programs beside them.
//! One program for all of them, since each program of tests links everything that Berth is.

mod audit;
mod binaries;
mod bind_faults;
mod binding;
mod controlplane;
mod controlplane_programs;
mod guards;
mod holders;
mod manifests;
mod mig;
mod plugin;
mod preempt;
mod reported;
mod rights;
mod runtime;
mod scheduling;
mod spread;
mod stream;
mod two_binders;
