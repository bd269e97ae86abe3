//! The addresses that devices can reach: `dma-ranges`.

use super::walk::{Cells, Node, Scope};
use super::{Board, Oddity, PA_LIMIT};

impl Board {
    /// Lowers the limit to the end of what the bus `node` reaches, if it says so. A bus without `dma-ranges`, or with
    /// an empty one, adds no limit of its own.
    pub(super) fn read_dma<'a>(&mut self, scope: &Scope<'a, '_>, node: &Node<'a>) {
        let Some(ranges) = node.dma_ranges.filter(|ranges| !ranges.is_empty()) else { return };
        let (child, parent) = (node.cells, scope.cells());
        let words = child.address.saturating_add(parent.address).saturating_add(child.size);
        let entries = ranges.chunks_exact(words.saturating_mul(4).max(1));
        // The bus address may have more cells than we read (PCI has three); only the CPU's side matters here.
        let reach = entries.filter_map(|entry| {
            let mut cells = Cells(entry.get(child.address.checked_mul(4)?..)?);
            let (address, size) = (cells.take(parent.address)?, cells.take(child.size)?);
            let address = scope.translate_dma(address, size)?;
            address.checked_add(size)
        });
        match reach.max() {
            Some(end) if end >= PA_LIMIT => {}
            Some(end) => self.dma_limit = Some(self.dma_limit.map_or(end, |limit| limit.min(end))),
            None => self.warn(Oddity::BadDma, node.name, 0, 0),
        }
    }

    /// Runs after the banks are settled: a limit below all memory would leave devices nothing to use.
    pub(super) fn check_dma_limit(&mut self) {
        let Some(limit) = self.dma_limit else { return };
        let lowest = self.banks.first().map_or(0, |bank| bank.region.base);
        let highest = self.banks.last().map_or(0, |bank| bank.region.end());
        if limit <= lowest {
            self.warn(Oddity::BadDma, "dma-ranges", limit, 0);
        }
        if limit <= lowest || limit >= highest {
            self.dma_limit = None;
        }
    }
}
