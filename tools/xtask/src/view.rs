//! `cargo xtask view`: a machine as `run` boots it, and a page on this host that shows its memory (tools/view, docs/view.md).

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use quire_view::live::Live;
use quire_view::replay::Replay;
use quire_view::{Hub, serve};

use crate::options::{RunOptions, ViewOptions};
use crate::output;
use crate::qemu::Commands;
use crate::run::{self, Viewer};

/// The exit status is the guest's.
pub fn view(options: &ViewOptions) -> Result<u8> {
    let hub = Arc::new(Hub::default());
    if let Some(file) = &options.replay {
        let replay = Replay::start(&hub, file)?;
        announce(serve(&hub, replay, options.port, 0, true)?);
        loop {
            thread::park();
        }
    }
    let record = match &options.record {
        Some(path) => {
            output::check(path)?;
            Some(File::create(path).with_context(|| format!("writing {}", path.display()))?)
        }
        None => None,
    };
    let (rate, port) = (options.rate * 10, options.port);
    run::boot(&options.run, Some(Box::new(Page { hub, title: title(&options.run), record, rate, port })))
}

fn announce(address: std::net::SocketAddr) {
    eprintln!("xtask: the machine's memory is shown at http://{address}/");
}

/// The page of a machine that is about to start.
struct Page {
    hub: Arc<Hub>,
    title: String,
    record: Option<File>,
    rate: u64,
    port: u16,
}

impl Viewer for Page {
    fn attach(self: Box<Self>, port: UnixStream, commands: Commands) -> Result<()> {
        let is_recorded = self.record.is_some();
        let stop = Box::new(move |on| commands.pause(on));
        let live = Live::start(&self.hub, port, self.title, self.record, self.rate, stop)?;
        announce(serve(&self.hub, live, self.port, self.rate, is_recorded)?);
        Ok(())
    }
}

/// A line that says which machine it is.
fn title(options: &RunOptions) -> String {
    let machine = &options.machine;
    let mut title = String::from("virt");
    let numbers = [("--smp", machine.smp.map(|n| n.to_string())), ("--mem", machine.mem.map(|size| size.to_string()))];
    let more = [("--numa", machine.numa.map(|n| n.to_string())), ("--append", options.append.clone())];
    for (name, value) in numbers.into_iter().chain(more).filter_map(|(name, value)| Some((name, value?))) {
        title += &format!(" {name} {value}");
    }
    if machine.icount {
        title += " --icount";
    }
    title
}
