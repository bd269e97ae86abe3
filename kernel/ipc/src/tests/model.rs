//! Random steps of clients and servers at one endpoint, compared with queues of the standard library. Nobody sleeps:
//! after each step both sides must agree on everybody's state.

use std::boxed::Box;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use proptest::prelude::*;
use quire_abi::Errno;
use quire_abi::ipc::received;
use quire_mm::fallible::KArc;
use quire_mm::machine::Threads;

use super::{M, endpoint, machine, read, record, registers, write};
use crate::{Call, Endpoint, Generation, HandedBack, Outcome, Received, Receiver, Registers, Reply, Saved, Sent};

const CLIENTS: usize = 5;
const SERVERS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Call(usize),
    /// Whether the other side's thread can be claimed.
    HandOver(usize, bool),
    HandBack(usize, bool),
    /// A parked client or server wakes, and sleeps again.
    ResumeClient(usize),
    ResumeServer(usize),
    GiveUp(usize),
    Interrupt(usize),
    Receive(usize, bool),
    Leave(usize),
    Answer(usize),
    Drop(usize),
    Save(usize),
    AnswerSaved(usize),
    DropSaved(usize),
    Signal(u64),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let (client, server) = (0..CLIENTS, 0..SERVERS);
    prop_oneof![
        8 => client.clone().prop_map(Step::Call),
        6 => (client.clone(), prop::bool::weighted(0.8)).prop_map(|(c, can)| Step::HandOver(c, can)),
        6 => (server.clone(), prop::bool::weighted(0.8)).prop_map(|(s, can)| Step::HandBack(s, can)),
        2 => client.clone().prop_map(Step::ResumeClient),
        2 => server.clone().prop_map(Step::ResumeServer),
        2 => client.clone().prop_map(Step::GiveUp),
        1 => client.prop_map(Step::Interrupt),
        8 => (server.clone(), any::<bool>()).prop_map(|(s, wait)| Step::Receive(s, wait)),
        1 => server.clone().prop_map(Step::Leave),
        4 => server.clone().prop_map(Step::Answer),
        1 => server.clone().prop_map(Step::Drop),
        3 => server.prop_map(Step::Save),
        2 => any::<usize>().prop_map(Step::AnswerSaved),
        1 => any::<usize>().prop_map(Step::DropSaved),
        1 => (1..16u64).prop_map(Step::Signal),
    ]
}

/// The state of a client's call in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Idle,
    Queued,
    Held,
    Over(Outcome, u64),
}

/// What a server was given, according to the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gift {
    Call { client: usize, label: u64, events: u64 },
    Word { kind: u64, label: u64, events: u64 },
    Dead,
}

struct Client {
    record: KArc<Call<M>>,
    registers: *mut Registers,
    generation: Option<Generation>,
    fate: Fate,
    label: u64,
    /// How many calls it has begun: distinguishes a saved reply of an earlier one.
    calls: u64,
    token: Option<u64>,
    is_interrupted: bool,
    is_parked: bool,
}

struct Server {
    receiver: Option<Box<Receiver<M>>>,
    /// The receiver that it is parked with; `None` while that is `receiver`.
    spare: Option<Box<Receiver<M>>>,
    registers: *mut Registers,
    /// Whether whoever claims it ends its receive.
    is_parked: bool,
    gift: Option<Gift>,
    reply: Option<(Reply<M>, usize, u64)>,
}

struct SavedCall {
    saved: KArc<Saved<M>>,
    client: usize,
    call: u64,
}

struct World {
    endpoint: KArc<Endpoint<M>>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    saved: BTreeMap<u64, SavedCall>,
    queue: VecDeque<usize>,
    waiting: VecDeque<usize>,
    news: VecDeque<(u64, u64)>,
    events: u64,
    is_dead: bool,
    next: u64,
}

impl World {
    fn new() -> Self {
        let client = |_| Client {
            record: record(),
            registers: registers(),
            generation: None,
            fate: Fate::Idle,
            label: 0,
            calls: 0,
            token: None,
            is_interrupted: false,
            is_parked: false,
        };
        let server = |_| Server {
            receiver: None,
            spare: Some(Box::new(Receiver::reusable(machine().this_thread()))),
            registers: registers(),
            is_parked: false,
            gift: None,
            reply: None,
        };
        Self {
            endpoint: endpoint(),
            clients: (0..CLIENTS).map(client).collect(),
            servers: (0..SERVERS).map(server).collect(),
            saved: BTreeMap::new(),
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            news: VecDeque::new(),
            events: 0,
            is_dead: false,
            next: 1,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The model's receive.
    fn take(&mut self) -> Option<Gift> {
        let events = std::mem::take(&mut self.events);
        if let Some((token, kind)) = self.news.pop_front() {
            return Some(Gift::Word { kind, label: token, events });
        }
        if let Some(client) = self.queue.pop_front() {
            self.clients[client].fate = Fate::Held;
            return Some(Gift::Call { client, label: self.clients[client].label, events });
        }
        (events != 0).then_some(Gift::Word { kind: received::EVENTS, label: 0, events })
    }

    /// Gives the new call or news to the server that has waited longest.
    fn serve(&mut self) {
        if let Some(server) = self.waiting.pop_front() {
            let gift = self.take();
            assert!(gift.is_some() && self.servers[server].gift.is_none());
            self.servers[server].gift = gift;
        }
    }

    fn call(&mut self, client: usize) {
        if self.clients[client].fate != Fate::Idle {
            return;
        }
        let label = self.fresh();
        let c = &mut self.clients[client];
        write(c.registers, label);
        (c.label, c.calls, c.token, c.is_interrupted, c.is_parked) = (label, c.calls + 1, None, false, false);
        let mut roused = 0;
        // SAFETY: the registers live for ever, and this thread continues with the client as the model requires.
        let sent = unsafe { self.endpoint.call(&c.record, c.registers, client as u64, |_| roused += 1) };
        if self.is_dead {
            assert_eq!(sent, Err(Errno::EPIPE));
            return;
        }
        c.fate = Fate::Queued;
        let is_received = !self.waiting.is_empty();
        self.queue.push_back(client);
        if is_received {
            self.serve();
        }
        assert_eq!(roused, u32::from(is_received));
        self.clients[client].generation = Some(match sent.unwrap() {
            Sent::Received(generation) => {
                assert!(is_received);
                generation
            }
            Sent::Queued(generation) => {
                assert!(!is_received);
                generation
            }
        });
    }

    fn hand_over(&mut self, client: usize, can: bool) {
        if self.clients[client].fate != Fate::Idle {
            return;
        }
        let label = self.fresh();
        let c = &mut self.clients[client];
        write(c.registers, label);
        let mut asked = 0;
        // SAFETY: as in `call`.
        let handed_over = unsafe {
            self.endpoint.hand_over(&c.record, c.registers, client as u64, |_| {
                asked += 1;
                can
            })
        };
        let Some(&server) = self.waiting.front() else {
            assert!(handed_over.is_none() && asked == 0);
            return;
        };
        assert_eq!((handed_over.is_some(), asked), (can, 1));
        let Some(handed_over) = handed_over else { return };
        (c.label, c.calls, c.token, c.is_interrupted, c.is_parked) = (label, c.calls + 1, None, false, true);
        c.generation = Some(handed_over.generation);
        self.queue.push_back(client);
        self.serve();
        let s = &mut self.servers[server];
        assert_eq!(handed_over.reply.is_some(), s.is_parked, "the receive of a parked thread is over");
        s.is_parked = false;
        if let Some(reply) = handed_over.reply {
            s.spare = s.receiver.take();
            self.given(server, Received::Call(reply));
        }
    }

    fn hand_back(&mut self, server: usize, can: bool) {
        let s = &mut self.servers[server];
        if s.receiver.is_some() {
            return;
        }
        let Some((reply, client, call)) = s.reply.take() else { return };
        let Some(receiver) = s.spare.take() else { panic!("not parked") };
        let label = self.next + 1;
        write(s.registers, label);
        receiver.prepare(s.registers);
        let (mut asked, mut roused) = (0, 0);
        // SAFETY: as in `receive`.
        let handed_back = unsafe {
            let claim = |_| {
                asked += 1;
                can
            };
            self.endpoint.hand_back(reply, &receiver, claim, |_| roused += 1)
        };
        let is_awaited = self.clients[client].fate == Fate::Held && self.clients[client].calls == call;
        let is_busy = self.is_dead || self.events != 0 || !self.queue.is_empty() || !self.news.is_empty();
        let s = &mut self.servers[server];
        match handed_back {
            HandedBack::Busy(reply) => {
                assert!(is_busy);
                s.reply = Some((reply, client, call));
                s.spare = Some(receiver);
                return;
            }
            HandedBack::Claimed(used) => {
                assert!(!is_busy && is_awaited && can);
                drop(used.into_record());
                s.receiver = Some(receiver);
                s.is_parked = true;
                self.waiting.push_back(server);
            }
            HandedBack::Answered(used) => {
                assert!(!(is_busy || is_awaited && can));
                drop(used);
                s.spare = Some(receiver);
            }
        }
        self.next = label;
        assert_eq!((asked, roused), (u32::from(is_awaited), u32::from(is_awaited && !can)));
        self.end(client, call, Outcome::Answered, label);
        let c = &mut self.clients[client];
        if is_awaited && can && c.is_parked {
            // Whoever claimed it has also ended its call.
            assert_eq!((c.record.outcome(machine()), read(c.registers)), (None, label));
            (c.fate, c.generation) = (Fate::Idle, None);
        }
    }

    fn resume_client(&mut self, client: usize) {
        let c = &mut self.clients[client];
        if c.fate != Fate::Idle && c.is_parked {
            c.record.resume();
            c.is_parked = false;
        }
    }

    fn resume_server(&mut self, server: usize) {
        let s = &mut self.servers[server];
        if let Some(receiver) = s.receiver.as_ref().filter(|_| s.is_parked) {
            receiver.resume();
            s.is_parked = false;
        }
    }

    fn give_up(&mut self, client: usize) {
        let c = &mut self.clients[client];
        let Some(generation) = c.generation else { return };
        match c.fate {
            Fate::Queued => {
                assert!(self.endpoint.withdraw(&c.record, generation));
                self.queue.retain(|&queued| queued != client);
            }
            Fate::Held => {
                assert!(!self.endpoint.withdraw(&c.record, generation));
                assert!(self.endpoint.give_up(&c.record, generation));
                if let Some(token) = c.token.take() {
                    self.tell(token, received::CANCELLED);
                }
            }
            Fate::Over(..) => {
                assert!(!self.endpoint.withdraw(&c.record, generation));
                assert!(!self.endpoint.give_up(&c.record, generation));
                return;
            }
            Fate::Idle => return,
        }
        let c = &mut self.clients[client];
        (c.fate, c.generation) = (Fate::Idle, None);
    }

    fn tell(&mut self, token: u64, kind: u64) {
        match self.news.iter_mut().find(|(told, _)| *told == token) {
            Some((_, old)) => *old = kind,
            None => self.news.push_back((token, kind)),
        }
        self.serve();
    }

    fn interrupt(&mut self, client: usize) {
        if self.clients[client].fate != Fate::Held {
            return;
        }
        self.endpoint.interrupt(&self.clients[client].record);
        self.clients[client].is_interrupted = true;
        if let Some(token) = self.clients[client].token {
            self.tell(token, received::INTERRUPTED);
        }
    }

    fn receive(&mut self, server: usize, may_wait: bool) {
        let s = &mut self.servers[server];
        if s.receiver.is_some() || s.reply.is_some() {
            return;
        }
        let receiver = Box::new(Receiver::new(machine().this_thread(), s.registers));
        // SAFETY: the box and the registers do not move before the receiver has left.
        let received = unsafe { self.endpoint.receive(&receiver, may_wait) };
        if self.is_dead {
            assert_eq!(received.err(), Some(Errno::EPIPE));
            return;
        }
        match self.take() {
            Some(gift) => {
                self.servers[server].gift = Some(gift);
                self.given(server, received.unwrap());
            }
            None if may_wait => {
                assert!(matches!(received, Ok(Received::Nothing)));
                self.servers[server].receiver = Some(receiver);
                self.waiting.push_back(server);
            }
            None => assert_eq!(received.err(), Some(Errno::EAGAIN)),
        }
    }

    /// Checks that a server has received what the model says.
    fn given(&mut self, server: usize, received: Received<M>) {
        let s = &mut self.servers[server];
        // SAFETY: nobody writes to the registers of a server that does not wait.
        let got = unsafe { *s.registers };
        match (s.gift.take(), received) {
            (Some(Gift::Call { client, label, events }), Received::Call(reply)) => {
                let expected = (received::CALL, label, client as u64, events);
                assert_eq!((got[0], read(s.registers), got[9], got[10]), expected);
                s.reply = Some((reply, client, self.clients[client].calls));
            }
            (Some(Gift::Word { kind, label, events }), Received::Other) => {
                assert_eq!((got[0], got[1], &got[2..8], got[9], got[10]), (kind, label, &[0; 6][..], 0, events));
            }
            (gift, _) => panic!("the model has {gift:?}"),
        }
    }

    fn leave(&mut self, server: usize) {
        let Some(receiver) = self.servers[server].receiver.take() else { return };
        self.servers[server].is_parked = false;
        let left = self.endpoint.leave(&receiver);
        if self.servers[server].spare.is_none() {
            self.servers[server].spare = Some(receiver);
        }
        match self.servers[server].gift {
            Some(Gift::Dead) => {
                assert_eq!(left.err(), Some(Errno::EPIPE));
                self.servers[server].gift = None;
            }
            Some(_) => self.given(server, left.unwrap()),
            None => {
                assert!(matches!(left, Ok(Received::Nothing)));
                self.waiting.retain(|&waiting| waiting != server);
            }
        }
    }

    /// Ends a call; returns whether the reply was to a call that waited for it.
    fn end(&mut self, client: usize, call: u64, outcome: Outcome, label: u64) -> bool {
        let c = &mut self.clients[client];
        let is_awaited = c.fate == Fate::Held && c.calls == call;
        if is_awaited {
            c.fate = Fate::Over(outcome, label);
        }
        is_awaited
    }

    fn answer(&mut self, server: usize) {
        let Some((reply, client, call)) = self.servers[server].reply.take() else { return };
        let label = self.fresh();
        write(self.servers[server].registers, label);
        // SAFETY: the server's own.
        let from = unsafe { &*self.servers[server].registers };
        assert_eq!(reply.answer(from, |_| ()), self.end(client, call, Outcome::Answered, label));
    }

    fn drop_reply(&mut self, server: usize) {
        if let Some((reply, client, call)) = self.servers[server].reply.take() {
            drop(reply);
            self.end(client, call, Outcome::Broken, 0);
        }
    }

    fn save(&mut self, server: usize) {
        let Some((reply, client, call)) = self.servers[server].reply.take() else { return };
        let token = self.fresh();
        let saved = Saved::try_new(&self.endpoint, reply, token).ok().unwrap();
        let c = &mut self.clients[client];
        assert_eq!(saved.is_some(), c.fate == Fate::Held && c.calls == call);
        let Some(saved) = saved else { return };
        c.token = Some(token);
        self.saved.insert(token, SavedCall { saved, client, call });
        if self.clients[client].is_interrupted {
            self.tell(token, received::INTERRUPTED);
        }
    }

    fn pick_saved(&mut self, nth: usize) -> Option<(u64, SavedCall)> {
        let token = *self.saved.keys().nth(nth % self.saved.len().max(1))?;
        self.news.retain(|(told, _)| *told != token);
        self.saved.remove(&token).map(|saved| (token, saved))
    }

    fn end_saved(&mut self, nth: usize, with_answer: bool) {
        let Some((_, SavedCall { saved, client, call })) = self.pick_saved(nth) else { return };
        let label = self.fresh();
        let mut from = [0; 11];
        write(&raw mut from, label);
        if with_answer {
            let did = saved.answer(&from, |_| ());
            drop(saved);
            assert_eq!(did, self.end(client, call, Outcome::Answered, label));
        } else {
            drop(saved);
            self.end(client, call, Outcome::Broken, 0);
        }
    }

    fn signal(&mut self, bits: u64) {
        let signalled = self.endpoint.signal(bits);
        assert_eq!(signalled.is_err(), self.is_dead);
        if !self.is_dead {
            self.events |= bits;
            self.serve();
        }
    }

    fn close(&mut self) {
        self.endpoint.close(|| ());
        self.is_dead = true;
        for server in std::mem::take(&mut self.waiting) {
            self.servers[server].gift = Some(Gift::Dead);
        }
        for client in std::mem::take(&mut self.queue) {
            self.clients[client].fate = Fate::Over(Outcome::Broken, 0);
        }
    }

    /// Each party takes what it was given, like a thread that was roused; both sides must agree on who was given
    /// something.
    fn settle(&mut self) {
        for server in 0..SERVERS {
            if let Some(receiver) = &self.servers[server].receiver {
                assert_eq!(receiver.is_served(), self.servers[server].gift.is_some());
            }
            if self.servers[server].gift.is_some() {
                self.leave(server);
            }
        }
        for c in &mut self.clients {
            let outcome = c.record.outcome(machine());
            let Fate::Over(expected, label) = c.fate else {
                assert_eq!(outcome, None);
                continue;
            };
            assert_eq!(outcome, Some(expected));
            if expected == Outcome::Answered {
                assert_eq!(read(c.registers), label);
            }
            c.record.finish(c.generation.take().unwrap());
            c.fate = Fate::Idle;
        }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Call(client) => self.call(client),
            Step::HandOver(client, can) => self.hand_over(client, can),
            Step::HandBack(server, can) => self.hand_back(server, can),
            Step::ResumeClient(client) => self.resume_client(client),
            Step::ResumeServer(server) => self.resume_server(server),
            Step::GiveUp(client) => self.give_up(client),
            Step::Interrupt(client) => self.interrupt(client),
            Step::Receive(server, may_wait) => self.receive(server, may_wait),
            Step::Leave(server) => self.leave(server),
            Step::Answer(server) => self.answer(server),
            Step::Drop(server) => self.drop_reply(server),
            Step::Save(server) => self.save(server),
            Step::AnswerSaved(nth) => self.end_saved(nth, true),
            Step::DropSaved(nth) => self.end_saved(nth, false),
            Step::Signal(bits) => self.signal(bits),
            Step::Close => self.close(),
        }
        self.settle();
    }

    /// All parties leave: no queue has an entry any more, and every record has one owner.
    fn end_all(&mut self) {
        for server in 0..SERVERS {
            self.leave(server);
            self.drop_reply(server);
        }
        self.settle();
        while !self.saved.is_empty() {
            self.end_saved(0, false);
            self.settle();
        }
        for client in 0..CLIENTS {
            self.give_up(client);
        }
        assert!(self.clients.iter().all(|c| KArc::count(&c.record) == 1));
        assert_eq!(KArc::count(&self.endpoint), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 400 }))]
    #[test]
    fn an_endpoint_is_its_queues(steps in proptest::collection::vec(step(), 1..200), ends in any::<bool>()) {
        let mut world = World::new();
        let half = steps.len() / 2;
        for (i, step) in steps.into_iter().enumerate() {
            world.take_step(step);
            if ends && i == half {
                world.take_step(Step::Close);
            }
        }
        world.end_all();
    }
}
