//! The server over real sockets, with a scripted [`Decide`] behind it.

mod calls;
mod drain;
mod limits;
mod rig;
