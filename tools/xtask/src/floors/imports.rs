//! Which modules a file imports: every path in it that leads through a given module, the root.
//!
//! The file is read as tokens, so that comments and strings are no code and the bodies of macros are. A path counts if it
//! begins with `crate`, `self` or `super`; one that begins otherwise cannot reach the root, since nothing may give the root
//! another name or import all that is in it ([`Import::Hidden`]).
//!
//! Items behind a `#[cfg(...)]` that is true for tests or for rustdoc alone do not count.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// What a path means for the floors.
#[derive(Debug, PartialEq, Eq)]
pub enum Import {
    /// It names this module or item of the root.
    Name(String),
    /// It gives the root, or a module above it, another name, or imports all that is in it.
    Hidden,
    /// A file that is taken for tests, but is no test's.
    NoTest,
}

/// The imports of a file with their lines. `root` and `file` are the paths of the two modules from the crate's root.
pub fn imports(text: &str, root: &[String], file: &[String]) -> Result<Vec<(usize, Import)>> {
    let stream: TokenStream = text.parse().map_err(|error| anyhow!("no Rust: {error}"))?;
    let mut search = Search { root, found: Vec::new() };
    search.tokens(stream, file);
    Ok(search.found)
}

struct Search<'a> {
    root: &'a [String],
    found: Vec<(usize, Import)>,
}

/// Where a path has led so far.
#[derive(Clone)]
enum Place {
    /// Nowhere: it begins here.
    Start,
    /// To this module or item of the crate.
    Own(Vec<String>),
    /// To another crate, or to a name that is known here.
    Other,
}

impl Place {
    fn step(self, name: &str, module: &[String]) -> Place {
        match (self, name) {
            (Place::Start, "crate") => Place::Own(vec![]),
            (Place::Start, "self") => Place::Own(module.to_vec()),
            (Place::Start, "super") => Place::Own(module.to_vec()).step(name, module),
            (Place::Own(path), "self") => Place::Own(path),
            (Place::Own(mut path), "super") => path.pop().map_or(Place::Other, |_| Place::Own(path)),
            (Place::Own(path), name) => Place::Own([path, vec![name.to_owned()]].concat()),
            (Place::Start | Place::Other, _) => Place::Other,
        }
    }
}

impl Search<'_> {
    /// Looks through tokens that lie in this module.
    fn tokens(&mut self, stream: TokenStream, module: &[String]) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at..] {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] if hash.as_char() == '#' => {
                    match is_for_tests(&attribute.stream()) {
                        true => end_of_item(&tokens, at + 2),
                        false => at + 1,
                    }
                }
                // `#![...]`: of all that is here.
                [TokenTree::Punct(hash), TokenTree::Punct(_), TokenTree::Group(attribute), ..]
                    if hash.as_char() == '#' && is_for_tests(&attribute.stream()) =>
                {
                    return;
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..] if word == "mod" => {
                    self.tokens(body.stream(), &[module, &[name.to_string()]].concat());
                    at + 3
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), ..] if word == "mod" && name == "tests" => {
                    self.add(name, Import::NoTest);
                    at + 2
                }
                [TokenTree::Ident(word), TokenTree::Ident(what), TokenTree::Ident(name), ..]
                    if word == "extern" && what == "crate" && name == "self" =>
                {
                    self.add(name, Import::Hidden);
                    at + 3
                }
                [TokenTree::Ident(word), ..] if word == "use" => {
                    self.follow(&tokens, at + 1, Place::Start, module, true).max(at + 1)
                }
                [TokenTree::Ident(word), ..]
                    if ["crate", "self", "super"].iter().any(|start| word == start) && is_colons(&tokens, at + 1) =>
                {
                    self.follow(&tokens, at, Place::Start, module, false)
                }
                [TokenTree::Group(group), ..] => {
                    self.tokens(group.stream(), module);
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Follows a path, or a tree of paths, and returns where it ends.
    fn follow(
        &mut self,
        tokens: &[TokenTree],
        mut at: usize,
        mut place: Place,
        module: &[String],
        is_use: bool,
    ) -> usize {
        let Some(first) = tokens.get(at) else { return at };
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(name)) => place = place.step(&name.to_string(), module),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let parts: Vec<TokenTree> = group.stream().into_iter().collect();
                    for part in parts.split(|token| is_punct(token, ',')) {
                        self.follow(part, 0, place.clone(), module, true);
                    }
                    return at + 1;
                }
                Some(star) if is_punct(star, '*') => {
                    self.end(place, first, true);
                    return at + 1;
                }
                _ => break,
            }
            at += 1;
            if !is_colons(tokens, at) {
                break;
            }
            at += 2;
        }
        let is_renamed = matches!(tokens.get(at), Some(TokenTree::Ident(word)) if word == "as");
        self.end(place, first, is_use || is_renamed);
        at
    }

    /// Notes where a path led. `is_name` if what is there, or all that is in it, gets a name here.
    fn end(&mut self, place: Place, first: &TokenTree, is_name: bool) {
        let Place::Own(path) = place else { return };
        let line = first.span().start().line;
        match path.strip_prefix(self.root) {
            Some([name, ..]) => self.found.push((line, Import::Name(name.clone()))),
            _ if is_name && self.root.starts_with(&path) => self.found.push((line, Import::Hidden)),
            _ => {}
        }
    }

    fn add(&mut self, at: &Ident, import: Import) {
        self.found.push((at.span().start().line, import));
    }
}

fn is_punct(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}

/// Whether `::` is there.
fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    tokens.get(at..at + 2).is_some_and(|two| two.iter().all(|token| is_punct(token, ':')))
}

/// Whether an attribute is a `cfg(...)` that only tests or rustdoc can fulfil.
fn is_for_tests(attribute: &TokenStream) -> bool {
    let tokens: Vec<TokenTree> = attribute.clone().into_iter().collect();
    let [TokenTree::Ident(cfg), TokenTree::Group(condition)] = &tokens[..] else { return false };
    cfg == "cfg" && asks_for_tests(&condition.stream().into_iter().collect::<Vec<_>>())
}

fn asks_for_tests(condition: &[TokenTree]) -> bool {
    match condition {
        [TokenTree::Ident(name)] => name == "test" || name == "doc",
        [TokenTree::Ident(name), TokenTree::Group(group)] => {
            let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
            let mut parts = tokens.split(|token| is_punct(token, ',')).filter(|part| !part.is_empty()).peekable();
            match name.to_string().as_str() {
                "all" => parts.any(asks_for_tests),
                "any" => parts.peek().is_some() && parts.all(asks_for_tests),
                _ => false,
            }
        }
        _ => false,
    }
}

/// The end of the item, statement or field at `at`: behind its `;`, its `,` or its braces, whichever is first.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> usize {
    // A comma between angle brackets is between parameters. (`->` is no bracket.)
    let mut open = 0_u32;
    let mut last = ' ';
    while let Some(token) = tokens.get(at) {
        at += 1;
        let char = match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return at,
            TokenTree::Punct(punct) => punct.as_char(),
            _ => ' ',
        };
        match char {
            ';' => return at,
            ',' if open == 0 => return at,
            '<' => open += 1,
            '>' if last != '-' && last != '=' => open = open.saturating_sub(1),
            _ => {}
        }
        last = char;
    }
    at
}
