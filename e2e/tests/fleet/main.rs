//! Black-box tests of whole fleets on a real model, one binary so that it links once.
//!
//! Each fault is judged by what a client notices: the tokens, with the exact bits of their
//! log-probabilities, equal those of an undisturbed run; then pages, transfers, sockets and processes are
//! back to where they were.

mod answers;
mod certificates;
mod decode_faults;
mod disconnects;
mod hostile;
mod overload;
mod prefill_faults;
mod split;
mod transfer_faults;
