//! A port of this machine that is nobody else's while a test lasts.

use std::net::Ipv4Addr;

use tokio::net::TcpSocket;

/// Held by a socket that is bound and does not listen: the system gives the port to nobody who asks for any, nor to a
/// connection that goes out, and refuses connections to it. A program that binds it by its number and `SO_REUSEADDR`,
/// as servers do, gets it.
pub(crate) struct Port {
    pub(crate) number: u16,
    _holder: TcpSocket,
}

impl Port {
    pub(crate) fn free() -> Self {
        let holder = TcpSocket::new_v4().unwrap();
        holder.set_reuseaddr(true).unwrap();
        holder.bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        Self { number: holder.local_addr().unwrap().port(), _holder: holder }
    }
}
