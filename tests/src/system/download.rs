//! A download by curl that takes its time, so that something can change meanwhile.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lb_userspace::lab::{Interrupt, Process, Role, VIP_L2};

use super::{Rig, until};

/// A running download of `/slow/big` from the client.
#[derive(Debug)]
pub struct Download {
    process: Process,
    file: PathBuf,
    big: PathBuf,
    /// The backend that serves it.
    pub server: String,
}

impl Download {
    /// Starts it from a fixed port at `rate` (`1m`: 1 MiB/s) and waits for the first bytes.
    pub fn start(rig: &Rig, address: Ipv4Addr, port: u16, rate: &str) -> anyhow::Result<Self> {
        let (file, headers) = (rig.file(&format!("got-{port}")), rig.file(&format!("headers-{port}")));
        let mut curl = rig.lab.command(Role::Client, "curl");
        curl.args(["-q", "-sS", "--fail", "--noproxy", "*", "--max-time", "60", "--local-port"]);
        curl.arg(port.to_string()).arg("-o").arg(&file).arg("-D").arg(&headers);
        curl.arg(format!("http://{address}/slow/big?rate={rate}"));
        let process = rig.lab.spawn(&format!("download-{port}"), &curl)?;
        let server = until("the download's first bytes", Duration::from_secs(10), || {
            process.check_running()?;
            let text = fs::read_to_string(&headers).unwrap_or_default();
            let name = text.lines().find_map(|line| line.strip_prefix("X-Backend: "));
            Ok(name.map(|name| name.trim().to_owned()).filter(|_| file.exists()))
        })?;
        Ok(Self { process, file, big: rig.lab.big_file(), server })
    }

    /// One from this backend at [`VIP_L2`]; those from others are ended.
    pub fn start_from(rig: &Rig, name: &str, ports: Range<u16>) -> anyhow::Result<Self> {
        for port in ports {
            let download = Self::start(rig, VIP_L2, port, "1m")?;
            if download.server == name {
                return Ok(download);
            }
            download.cancel()?;
        }
        anyhow::bail!("{name} serves nobody")
    }

    /// An error if it has ended already: then what was to be shown during it was not shown.
    pub fn expect_running(&self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("the download has ended too early ({status}): {}", self.process.log_tail(3))
            }
        }
    }

    /// Waits for its end and compares every byte.
    pub fn finish(&self) -> anyhow::Result<()> {
        let status = self.process.wait(Duration::from_secs(60), &Interrupt::never())?;
        ensure!(
            status.success(),
            "the download from {} broke ({status}): {}",
            self.server,
            self.process.log_tail(3)
        );
        let (got, sent) = (fs::read(&self.file).context("download")?, fs::read(&self.big).context("big")?);
        ensure!(got == sent, "{} bytes came, not the {} that were sent", got.len(), sent.len());
        Ok(())
    }

    /// Ends it.
    pub fn cancel(&self) -> anyhow::Result<()> {
        self.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.process.wait(Duration::from_secs(5), &Interrupt::never())?;
        Ok(())
    }
}
