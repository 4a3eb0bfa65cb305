//! Keeps followed objects by name: a list replaces them as a whole, but only once it is complete.

use std::collections::HashMap;

use super::follow::Seen;

/// Objects by name.
#[derive(Debug)]
pub(crate) struct Book<T> {
    current: HashMap<Box<str>, T>,
    /// The list that is being read.
    listing: Option<HashMap<Box<str>, T>>,
    is_read: bool,
    /// Entries that are kept; what is beyond is not, whoever wrote it.
    limit: usize,
}

impl<T> Book<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { current: HashMap::new(), listing: None, is_read: false, limit }
    }

    /// Takes up what was seen; `make` makes an entry of an object and what was known under its name, or `None` where it
    /// says nothing.
    pub(crate) fn take<O>(
        &mut self,
        seen: Seen<O>,
        name: impl Fn(&O) -> Option<&str>,
        make: impl Fn(&O, Option<&T>) -> Option<T>,
    ) {
        match seen {
            Seen::Begin => self.listing = Some(HashMap::new()),
            Seen::Complete => {
                if let Some(list) = self.listing.take() {
                    self.current = list;
                }
                self.is_read = true;
            }
            Seen::Gone(object) => {
                if let Some(name) = name(&object) {
                    self.current.remove(name);
                }
            }
            Seen::Object(object) => {
                let Some(name) = name(&object) else { return };
                let entry = make(&object, self.current.get(name));
                let entries = self.listing.as_mut().unwrap_or(&mut self.current);
                match entry {
                    Some(entry) if entries.len() < self.limit || entries.contains_key(name) => {
                        entries.insert(name.into(), entry);
                    }
                    _ => drop(entries.remove(name)),
                }
            }
            // What was known last stays.
            Seen::Failed => {}
        }
    }

    /// Whether a list was ever complete.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.current.iter().map(|(name, entry)| (&**name, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(book: &mut Book<u8>, seen: Seen<(&str, u8)>) {
        book.take(seen, |object| Some(object.0), |object, _| Some(object.1));
    }

    fn names(book: &Book<u8>) -> Vec<&str> {
        let mut names: Vec<&str> = book.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_list_replaces_everything_once_it_is_complete_and_not_before() {
        let mut book = Book::new(3);
        for seen in [Seen::Begin, Seen::Object(("a", 1)), Seen::Object(("b", 1)), Seen::Complete] {
            take(&mut book, seen);
        }
        assert!(book.is_read());
        for seen in [Seen::Begin, Seen::Object(("c", 1)), Seen::Failed] {
            take(&mut book, seen);
        }
        assert_eq!(names(&book), ["a", "b"], "a list that broke off");
        for seen in [Seen::Begin, Seen::Object(("c", 1)), Seen::Complete] {
            take(&mut book, seen);
        }
        assert_eq!(names(&book), ["c"]);
        take(&mut book, Seen::Object(("d", 1)));
        take(&mut book, Seen::Gone(("c", 1)));
        assert_eq!(names(&book), ["d"]);
    }

    #[test]
    fn no_more_entries_are_kept_than_the_limit_allows() {
        let mut book = Book::new(2);
        for name in ["a", "b", "c", "d"] {
            take(&mut book, Seen::Object((name, 1)));
        }
        take(&mut book, Seen::Object(("b", 2)));
        assert_eq!(names(&book), ["a", "b"]);
        assert!(book.iter().any(|(_, entry)| *entry == 2), "what is known is still updated");
    }
}
