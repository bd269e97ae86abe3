//! Queues and garbage compared with simple models; addresses by example.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use quire_abi::Errno;

use crate::address::{GIVEN_MAX, TOLD_MAX};
use crate::queue::SMALL;
use crate::{Address, Graph, Message, Name, Queue, garbage};

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(usize),
    /// Claims a message, reads this many bytes, and gives back the rest.
    Read(usize),
    /// Claims a message; pushes another one; gives the first one back.
    Peek(usize),
    PeekAll(usize),
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..9usize).prop_map(Step::Push),
        4 => (0..9usize).prop_map(Step::Read),
        1 => (0..9usize).prop_map(Step::Peek),
        1 => (0..9usize).prop_map(Step::PeekAll),
        1 => Just(Step::Take),
    ]
}

fn run(steps: &[Step]) {
    let mut queue = Queue::new();
    let mut model: VecDeque<(Vec<u8>, usize)> = VecDeque::new();
    let mut number = 0;
    let mut push = |queue: &mut Queue<usize>, model: &mut VecDeque<(Vec<u8>, usize)>, len: usize| {
        number += 1;
        let bytes: Vec<u8> = (0..len).map(|i| (number * 7 + i) as u8).collect();
        model.push_back((bytes.clone(), number));
        let message = if usize::is_multiple_of(number, 3) {
            let mut small = [0; SMALL];
            small[..len].copy_from_slice(&bytes);
            Message::small(small, len, number)
        } else {
            Message::new(bytes, number)
        };
        queue.push(message.unwrap());
    };
    for step in steps {
        match *step {
            Step::Push(len) => push(&mut queue, &mut model, len),
            Step::Read(n) => match queue.claim() {
                None => assert!(model.is_empty()),
                Some(mut message) => {
                    assert!(queue.is_claimed() && queue.claim().is_none());
                    let (bytes, number) = model.front_mut().unwrap();
                    assert_eq!((message.rest(), message.extra), (&bytes[..], *number));
                    message.pass(n);
                    bytes.drain(..n.min(bytes.len()));
                    if bytes.is_empty() {
                        queue.finish();
                        model.pop_front();
                    } else {
                        queue.give_back(message);
                    }
                }
            },
            Step::Peek(len) => {
                let message = queue.claim();
                push(&mut queue, &mut model, len);
                if let Some(message) = message {
                    queue.give_back(message);
                }
            }
            Step::PeekAll(len) => {
                let messages = queue.claim_all();
                push(&mut queue, &mut model, len);
                if let Some(messages) = messages {
                    assert_eq!(messages.iter().count(), model.len() - 1);
                    queue.give_back_all(messages);
                }
            }
            Step::Take => {
                let taken: Vec<usize> = queue.take().into_iter().map(|message| message.extra).collect();
                assert_eq!(taken, model.drain(..).map(|(_, number)| number).collect::<Vec<_>>());
            }
        }
        queue.validate();
        assert_eq!((queue.len(), queue.unread()), (model.len(), model.iter().map(|(bytes, _)| bytes.len()).sum()));
        assert_eq!(queue.front().map(|message| message.extra), model.front().map(|(_, number)| *number));
    }
}

/// For each socket: the number of references from outside, and the references that wait at it.
struct Sockets(Vec<(usize, Vec<usize>)>);

impl Graph for Sockets {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn in_flight(&self, socket: usize) -> usize {
        self.0.iter().flat_map(|(_, waiting)| waiting).filter(|other| **other == socket).count() + self.0[socket].0 / 2
    }
    fn is_held(&self, socket: usize) -> bool {
        !self.0[socket].0.is_multiple_of(2)
    }
    fn each(&self, socket: usize, visit: &mut dyn FnMut(usize)) {
        self.0[socket].1.iter().for_each(|other| visit(*other));
    }
}

/// What can be reached from outside, step by step.
fn reached(sockets: &Sockets) -> Vec<bool> {
    let mut live: Vec<bool> = sockets.0.iter().map(|(outside, _)| *outside > 0).collect();
    for _ in 0..live.len() {
        for (socket, (_, waiting)) in sockets.0.iter().enumerate() {
            for other in waiting {
                if live[socket] && *other < live.len() {
                    live[*other] = true;
                }
            }
        }
    }
    live
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn queues_keep_order_and_count(steps in vec(step(), 1..100)) {
        run(&steps);
    }

    /// 1 is a descriptor, and 2 a message at a socket that is not in flight.
    #[test]
    fn garbage_is_what_nobody_reaches(sockets in vec((prop_oneof![6 => Just(0usize), 1 => 1..4usize], vec(0..12usize, 0..4)), 1..12)) {
        let sockets = Sockets(sockets);
        let live = reached(&sockets);
        let found = garbage(&sockets).unwrap();
        prop_assert_eq!(found, live.iter().map(|live| !live).collect::<Vec<_>>());
    }
}

fn given(path: &[u8]) -> Vec<u8> {
    [&1u16.to_ne_bytes()[..], path].concat()
}

#[test]
fn addresses_are_paths_or_abstract() {
    let name = |path: &[u8]| Address::parse(&given(path)).unwrap().unwrap();
    assert_eq!(name(b"/tmp/x\0rest").name(), Name::Path(b"/tmp/x"));
    assert_eq!(name(b"/tmp/x").bytes(), b"/tmp/x\0");
    assert_eq!(name(b"\0a\0b").name(), Name::Abstract(b"\0a\0b"));
    assert_eq!(name(&[b'x'; 108]).name(), Name::Path(&[b'x'; 108]));
    assert_eq!(Address::parse(&given(b"")), Ok(None));
    assert_eq!(Address::any(0xabcde).bytes(), b"\0abcde");
    let refused = |bytes: &[u8]| assert_eq!(Address::parse(bytes), Err(Errno::EINVAL));
    refused(b"");
    refused(&[1]);
    refused(&2u16.to_ne_bytes());
    refused(&[&given(b"")[..], &[b'x'; GIVEN_MAX]].concat());
    let mut told = [0; TOLD_MAX];
    assert_eq!(Address::tell(Some(&name(&[b'x'; 108])), &mut told), TOLD_MAX);
    assert_eq!(Address::tell(None, &mut told), 2);
}
