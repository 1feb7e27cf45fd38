//! No connection breaks: two thousand of them move data all the time over TCP, beside flows of UDP and QUIC, whatever is
//! done to the balancer. In one program, so that scenes that mostly wait run beside each other.

mod changes;
mod crash;
mod flood;
mod steps;
