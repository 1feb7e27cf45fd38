//! From YAML text to the desired state: reads the file, decodes it, checks it, says everything that is wrong.
//!
//! The only module that knows YAML. It knows nothing of the kernel: whether an interface exists or a backend is
//! on-link is found out by others.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

mod build;
mod check;
mod decode;
mod diagnostic;
mod effective;
mod effective_health;
mod health;
mod health_kind;
mod health_value;
mod layers;
mod near;
mod node;
mod policy;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod value;

pub use diagnostic::{Diagnostic, Diagnostics, Severity, code};
pub use source::Place;

use crate::model::Model;
use diagnostic::{Findings, Report};
use source::{Source, Span};

/// The largest config that is read.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// The key of the flow hash and the rings where no `cluster.key_file` is given. It keeps nothing secret: it
/// only makes balancers without a key agree.
pub const DEFAULT_HASH_KEY: [u8; 16] = *b"lb default key 1";

/// A config that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it asks for.
    pub model: Model,
    /// `cluster.key_file` as written: relative to the config's directory.
    pub key_file: Option<String>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// The text it was read from.
    pub text: String,
}

impl Loaded {
    /// The merged view as YAML: defaults filled in, everything sorted, valid input again in the same directory.
    pub fn effective(&self) -> String {
        effective::render(&self.model, self.key_file.as_deref())
    }
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

/// Checks a config's text. `name` stands for the file in messages, and its directory is where a relative
/// `key_file` is looked for.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    parse_in(Path::new(name).parent().unwrap_or(Path::new("")), name, text)
}

fn parse_in(directory: &Path, name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    parse_with(directory, name, text, &|file| read_key(&directory.join(file)))
}

/// How a key file's bytes are got: the only thing here that is not in the text.
type KeyReader<'a> = dyn Fn(&str) -> io::Result<Vec<u8>> + 'a;

fn parse_with(
    directory: &Path,
    name: &str,
    text: &str,
    read_key: &KeyReader<'_>,
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
    let config = schema::decode(&root, directory, &mut out);
    check::check(&config, &mut out);
    let hash_key = hash_key(&config, read_key, &mut out);
    if out.has_errors() {
        return Err(out.into_errors());
    }
    Ok(Loaded {
        key_file: config.key_file.as_ref().map(|file| file.value.clone()),
        model: build::model(config, hash_key),
        warnings: out.into_warnings(),
        text: text.to_owned(),
    })
}

fn hash_key(config: &schema::Config, read_key: &KeyReader<'_>, out: &mut Findings<'_>) -> [u8; 16] {
    let Some(file) = &config.key_file else {
        return DEFAULT_HASH_KEY;
    };
    let message = match read_key(&file.value) {
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

fn read_key(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would block, and a device may never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(value::MAX_KEY_FILE_BYTES).read_to_end(&mut bytes)?;
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
