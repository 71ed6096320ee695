//! When a socket wakes whoever waits for it.

use std::io;
#[cfg(target_os = "linux")]
use std::sync::LazyLock;

#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt::SetUsize};
#[cfg(target_os = "linux")]
use nix::sys::utsname::uname;
use tokio::net::TcpStream;

/// So many bytes must have come before whoever waits for some is woken: `SO_RCVLOWAT`.
#[cfg(target_os = "linux")]
#[derive(Clone)]
struct ReceiveLowWater;

#[cfg(target_os = "linux")]
nix::setsockopt_impl!(ReceiveLowWater, libc::SOL_SOCKET, libc::SO_RCVLOWAT, usize, SetUsize);

/// Has whoever waits to read woken once so many bytes have come, or the connection has ended.
/// Otherwise the kernel wakes a reader for each segment, at the cost of a sender on the same machine.
/// Where what has come already is enough, the reader is woken at once.
///
/// # Errors
///
/// Where the system can't, and nothing has changed: it is for Linux 4.18 and later.
pub fn wake_at(tcp: &TcpStream, bytes: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if *LOOKS_AGAIN {
        return Ok(setsockopt(tcp, ReceiveLowWater, &bytes)?);
    }
    let _ = (tcp, bytes);
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the kernel, when the mark is set, looks at what has come already. One that does not would
/// leave a reader asleep beside it.
#[cfg(target_os = "linux")]
static LOOKS_AGAIN: LazyLock<bool> =
    LazyLock::new(|| uname().is_ok_and(|system| looks_again(&system.release().to_string_lossy())));

#[cfg(any(target_os = "linux", test))]
fn looks_again(release: &str) -> bool {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (4_u32, 18_u32),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_4_18_do_not_look_again() {
        for old in
            ["4.17.19", "4.14.355-280.amzn2.x86_64", "3.10.0-1160.el7", "2.6", "", "x.y", "5"]
        {
            assert!(!looks_again(old), "{old:?}");
        }
        for new in ["4.18.0-553.el8", "4.19", "5.4.0-1-generic", "6.18.5+", "10.0.0"] {
            assert!(looks_again(new), "{new:?}");
        }
    }
}
