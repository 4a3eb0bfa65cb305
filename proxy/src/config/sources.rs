//! Reads every place that values come from and picks, per flag, the first place that has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::flags::{self, Arity};
use super::origin::{Flag, Origin};
use super::{file, manifest};

/// What one place gives: texts by flag name, lists still with their commas.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) origin: Origin,
    pub(super) values: BTreeMap<&'static str, Vec<String>>,
}

/// All places, the one that wins first.
#[derive(Debug)]
pub(super) struct Sources {
    places: Vec<Source>,
    /// False when the `--config` file could not be read, so that nothing can be said to be missing.
    pub(super) config_read: bool,
    /// The same of the manifest, for the flags that it may provide.
    pub(super) manifest_read: bool,
    /// The manifest, when one was named.
    pub(super) manifest: Option<PathBuf>,
}

/// One flag's value and where it was written.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) flag: Flag,
    pub(super) origin: &'a Origin,
    values: &'a [String],
}

impl Given<'_> {
    /// The value of a flag that holds one, the last if repeated; an empty text unsets it.
    pub(super) fn last(&self) -> Option<&str> {
        self.values.last().map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The values as they were given, without empty ones.
    pub(super) fn each(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The values of a list, without empty ones.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
    }
}

impl Sources {
    pub(super) fn pick(&self, name: &'static str) -> Option<Given<'_>> {
        debug_assert!(flags::find(name).is_some(), "{name} is in the flag table");
        self.places.iter().find_map(|place| {
            let values = place.values.get(name)?;
            Some(Given { flag: Flag::at(name, &place.origin), origin: &place.origin, values })
        })
    }

    fn one(&self, name: &'static str) -> Option<(Flag, PathBuf)> {
        debug_assert!(flags::find(name).is_some_and(|flag| flag.arity == Arity::One));
        let given = self.pick(name)?;
        let file = PathBuf::from(given.last()?);
        Some((given.flag, file))
    }

    /// Adds a place that could be read; says whether it could.
    fn add(&mut self, place: Result<Source, ConfigError>, mistakes: &mut Vec<ConfigError>) -> bool {
        match place {
            Ok(source) => self.places.push(source),
            Err(mistake) => {
                mistakes.push(mistake);
                return false;
            }
        }
        true
    }
}

/// Reads the files that the command line, and then the `--config` file, name.
pub(super) fn gather(command_line: Source, mistakes: &mut Vec<ConfigError>) -> Sources {
    let mut sources =
        Sources { places: vec![command_line], config_read: true, manifest_read: true, manifest: None };
    if let Some((flag, path)) = sources.one("config") {
        let place = read(flag, &path).and_then(|(flag, text)| file::read(flag, &path, &text, mistakes));
        sources.config_read = sources.add(place, mistakes);
    }
    if let Some((flag, path)) = sources.one("apiserver-manifest") {
        let place = read(flag, &path).and_then(|(flag, text)| manifest::read(flag, &path, &text));
        sources.manifest_read = sources.add(place, mistakes);
        sources.manifest = Some(path);
    }
    sources
}

fn read(flag: Flag, path: &Path) -> Result<(Flag, String), ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((flag, text)),
        Err(source) => Err(ConfigError::Unreadable { flag, file: path.to_path_buf(), source }),
    }
}
