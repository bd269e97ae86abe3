//! The pins of serial ports on Broadcom's chips: each pin connects to one of several internal devices.
//!
//! A port's `pinctrl-0` names groups of pins and their functions (`brcm,pins`, `brcm,function`). If a device is
//! soldered to those, as Bluetooth is to a Pi 4's PL011, the kernel's output would reach no person. Such a port is
//! moved to the pins of the port with a connector, if the tree has a group for that. The group is found by its name,
//! which begins like those of the port's own ("uart0_gpio14" beside "uart0_gpio32").

use heapless::Vec;

use super::walk::{Cells, Node};
use super::{Board, Region};

/// The maximum number of pins that are set for a port.
pub const MAX_PINS: usize = 8;

/// A pin and its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its number.
    pub number: u8,
    /// The value of its function selector.
    pub function: u8,
}

/// The function of a pin that leads nowhere.
const INPUT: u8 = 0;

/// The settings for the pins of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    /// The registers of the pin controller.
    pub registers: Region,
    /// The pins, in the order in which they are to be set.
    pub pins: Vec<Pin, MAX_PINS>,
}

/// The pin controller.
#[derive(Clone, Copy)]
pub(super) struct Controller<'a> {
    pub node: Node<'a>,
    pub registers: Region,
}

/// One of its groups: a node.
struct Group<'a>(Node<'a>);

impl<'a> Group<'a> {
    fn pins(&self) -> impl Iterator<Item = Pin> + use<'a> {
        let mut functions = Cells(self.0.property("brcm,function").unwrap_or_default());
        let mut numbers = Cells(self.0.property("brcm,pins").unwrap_or_default());
        let mut function = None;
        core::iter::from_fn(move || {
            // Either one function for all pins or one for each.
            function = functions.take(1).or(function);
            let small = |cell: Option<u64>, limit: u8| u8::try_from(cell?).ok().filter(|value| *value < limit);
            Some(Pin { number: small(numbers.take(1), 64)?, function: small(function, 8)? })
        })
    }

    /// The device that the group is for, by its name.
    fn stem(&self) -> &'a str {
        self.0.name.split_once("_gpio").map_or(self.0.name, |(stem, _)| stem)
    }

    fn has_numbers_of(&self, pins: &[Pin]) -> bool {
        self.pins().map(|pin| pin.number).eq(pins.iter().map(|pin| pin.number))
    }
}

impl<'a> Controller<'a> {
    fn groups(&self) -> impl Iterator<Item = Group<'a>> {
        self.node.children().map(Group)
    }

    /// The groups that a port's `pinctrl-0` names.
    fn groups_of(&self, pinctrl: &'a [u8]) -> impl Iterator<Item = Group<'a>> {
        let mut phandles = Cells(pinctrl);
        let found = move || phandles.take(1);
        let controller = *self;
        core::iter::from_fn(found)
            .filter(|phandle| *phandle != 0)
            .filter_map(move |phandle| controller.groups().find(|group| u64::from(group.0.phandle) == phandle))
    }
}

impl Board {
    /// Runs once ports and their devices are known. `pinctrl` is each port's `pinctrl-0`.
    pub(super) fn connect_pins<'a>(
        &mut self,
        controller: Option<Controller<'a>>,
        pinctrl: impl Fn(usize) -> Option<&'a [u8]>,
    ) {
        let Some(controller) = controller.filter(|c| !self.touches_memory(&c.registers)) else { return };
        let registers = controller.registers;
        let own = |at: usize| {
            let groups = pinctrl(at).into_iter().flat_map(|pinctrl| controller.groups_of(pinctrl));
            // A serial port has at most transmit, receive and the two flow-control pins, so its own pins fit.
            groups.flat_map(|group| group.pins()).take(MAX_PINS).collect::<Vec<Pin, MAX_PINS>>()
        };
        let free = |at: &usize| !self.uarts[*at].occupied && !own(*at).is_empty();
        let person = self.stdout.filter(free).or((0..self.uarts.len()).find(free)).map(own);
        for at in 0..self.uarts.len() {
            let mut pins = own(at);
            if pins.is_empty() {
                continue;
            }
            if self.uarts[at].occupied {
                let stems = |group: &Group<'a>| {
                    let named = pinctrl(at).into_iter().flat_map(|pinctrl| controller.groups_of(pinctrl));
                    named.map(|own| own.stem()).any(|stem| stem == group.stem())
                };
                let better = person
                    .as_ref()
                    .and_then(|person| controller.groups().find(|group| group.has_numbers_of(person) && stems(group)));
                let Some(better) = better else { continue };
                // Two pins on one internal signal would conflict.
                pins.iter_mut().for_each(|pin| pin.function = INPUT);
                if better.pins().any(|pin| pins.push(pin).is_err()) {
                    continue;
                }
            }
            self.uarts[at].pins = Some(Pins { registers, pins });
        }
    }
}
