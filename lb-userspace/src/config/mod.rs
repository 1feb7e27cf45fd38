//! From YAML text to the desired state: reads the file, decodes it, checks it, says everything that is wrong.
//!
//! The only module that knows YAML. It knows nothing of the kernel: whether an interface exists or a backend is
//! on-link is found out by others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod admission;
mod build;
mod check;
mod check_fit;
mod check_overlap;
mod decode;
mod diagnostic;
mod effective;
mod effective_flows;
mod effective_health;
mod effective_service;
mod flows;
mod flows_value;
mod forwarding;
mod health;
mod health_kind;
mod health_value;
mod layers;
mod near;
mod nic;
mod node;
mod policy;
mod quic;
mod schema;
mod shapes;
mod source;
#[cfg(test)]
mod tests;
mod traffic;
mod value;
mod value_net;

pub use diagnostic::{Diagnostic, Diagnostics, Severity, code};
pub use source::Place;

use crate::model::Model;
use admission::{FileReader, Files};
use diagnostic::{Findings, Report};
use source::{Source, Span};

/// The largest config that is read.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// The key of the flow hash and the rings where no `cluster.key_file` is given. It keeps nothing secret: it
/// only makes balancers without a key agree.
pub const DEFAULT_HASH_KEY: [u8; 16] = *b"lb default key 1";

/// A duration as configs write it, a whole number with its unit (`500ms`, `90s`, `2h`); `None` if it is none, or not
/// within these bounds.
pub fn duration(text: &str, within: RangeInclusive<Duration>) -> Option<Duration> {
    let [least, most] = [within.start(), within.end()].map(|bound| u64::try_from(bound.as_millis()).ok());
    health_value::duration(text, least?, most?).ok()
}

/// A config that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it asks for.
    pub model: Model,
    /// The files it names, as written.
    pub files: NamedFiles,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// The text it was read from.
    pub text: String,
}

impl Loaded {
    /// The merged view as YAML: defaults filled in, everything sorted, valid input again in the same directory.
    pub fn effective(&self) -> String {
        effective::render(&self.model, &self.files)
    }
}

/// Files that a config names, as written: relative to its directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NamedFiles {
    /// `cluster.key_file`.
    pub key: Option<String>,
    /// Those of `allow`, by the service's name.
    pub allow: BTreeMap<String, String>,
    /// Those of `deny`, by the service's name.
    pub deny: BTreeMap<String, String>,
}

/// Why a config could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read and is wrong.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

/// Reads and checks a config file.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed is enough for `parse` to refuse it.
    let limit = MAX_TEXT_BYTES as u64 + 1;
    File::open(path).map_err(read)?.take(limit).read_to_end(&mut bytes).map_err(read)?;

    let name = path.display().to_string();
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.as_bytes().len() > MAX_TEXT_BYTES => {
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }
        Err(error) => return Err(not_utf8(&name, &error).into()),
    };
    Ok(parse_in(path.parent().unwrap_or(Path::new("")), &name, &text)?)
}

/// Checks a config's text. `name` stands for the file in messages, and its directory is where relative
/// files are looked for.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    parse_in(Path::new(name).parent().unwrap_or(Path::new("")), name, text)
}

fn parse_in(directory: &Path, name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    parse_with(directory, name, text, &|file, most| read_file(&directory.join(file), most))
}

fn parse_with(
    directory: &Path,
    name: &str,
    text: &str,
    read: &FileReader<'_>,
) -> Result<Loaded, Diagnostics> {
    let source = Source::new(name, text);
    let mut out = Findings::new(&source);
    if text.len() > MAX_TEXT_BYTES {
        out.push(
            Report::error(code::TOO_LARGE, Span::START, format!("the config is over {MAX_TEXT_BYTES} bytes"))
                .help("is this the right file?"),
        );
        return Err(out.into_errors());
    }

    let Some(root) = node::parse(text, &mut out) else {
        return Err(out.into_errors());
    };
    let config = schema::decode(&root, directory, &Files::new(read), &mut out);
    check::check(&config, &mut out);
    let hash_key = hash_key(&config, read, &mut out);
    if out.has_errors() {
        return Err(out.into_errors());
    }
    Ok(Loaded {
        files: named_files(&config),
        model: build::model(config, hash_key),
        warnings: out.into_warnings(),
        text: text.to_owned(),
    })
}

fn named_files(config: &schema::Config) -> NamedFiles {
    let of = |list: fn(&admission::Admission) -> &admission::List| {
        let services = config.services.iter();
        services
            .filter_map(|service| {
                Some((service.name.as_ref()?.value.clone(), list(&service.admission).file.clone()?))
            })
            .collect()
    };
    NamedFiles {
        key: config.key_file.as_ref().map(|file| file.value.clone()),
        allow: of(|admission| &admission.allow),
        deny: of(|admission| &admission.deny),
    }
}

fn hash_key(config: &schema::Config, read: &FileReader<'_>, out: &mut Findings<'_>) -> [u8; 16] {
    let Some(file) = &config.key_file else {
        return DEFAULT_HASH_KEY;
    };
    let message = match read(&file.value, value::MAX_KEY_FILE_BYTES) {
        Ok(bytes) => match value::key(&bytes) {
            Some(key) => return key,
            None => "the key file does not hold a key".to_owned(),
        },
        Err(error) => format!("cannot read the key file: {error}"),
    };
    out.push(Report::error(code::KEY_FILE, file.span, message).help(
        "a key file is 16 raw bytes or 32 hex digits; a relative path starts at the config's directory",
    ));
    DEFAULT_HASH_KEY
}

fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe would block, and a device may never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Diagnostics {
    // Up to the offending byte the lossy text has the same offsets.
    let text = String::from_utf8_lossy(error.as_bytes());
    let source = Source::new(name, &text);
    let mut out = Findings::new(&source);
    let at = Span::at(error.utf8_error().valid_up_to());
    out.push(Report::error(code::SYNTAX, at, "the config is not UTF-8 text".to_owned()));
    out.into_errors()
}
