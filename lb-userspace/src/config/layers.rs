//! Mappings laid over each other, key by key: a backend's check over its pool's over the defaults'.
//!
//! Knows in which mapping a value is written, and nothing of what it means.

use std::time::Duration;

use super::decode::{At, Fields};
use super::diagnostic::{Findings, Report, code};
use super::health_value::written;
use super::node::Node;
use super::source::Span;
use super::value::Reader;

/// Mappings laid over each other.
pub(super) struct Layers<'n> {
    /// The one that is talked about, if there is one.
    own: Option<Fields<'n>>,
    /// The others, the nearest first.
    inherited: Vec<Fields<'n>>,
}

/// A duration that is written somewhere, or a default.
#[derive(Clone, Copy)]
pub(super) struct Length {
    key: &'static str,
    pub(super) value: Duration,
    /// Written, but not as a duration: the value is not what anybody meant.
    refused: bool,
}

impl<'n> Layers<'n> {
    pub(super) fn new(
        own: Option<Fields<'n>>,
        inherited: impl IntoIterator<Item = Fields<'n>>,
    ) -> Layers<'n> {
        Layers { own, inherited: inherited.into_iter().collect() }
    }

    pub(super) fn own(&self) -> Option<&Fields<'n>> {
        self.own.as_ref()
    }

    /// Whether the mapping itself has a key.
    pub(super) fn is_own(&self, key: &str) -> bool {
        self.own.is_some_and(|own| own.get(key).is_some())
    }

    /// How far away a key is written; the same for keys of one mapping.
    pub(super) fn depth(&self, key: &str) -> Option<usize> {
        self.all().position(|fields| fields.get(key).is_some())
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.all().find_map(|fields| fields.get(key))
    }

    pub(super) fn read<T>(&self, key: &str, as_: &Reader<T>, out: &mut Findings<'_>) -> Option<At<T>> {
        self.all().find(|fields| fields.get(key).is_some())?.optional(key, as_, out)
    }

    /// A duration, or its default.
    pub(super) fn duration(
        &self,
        key: &'static str,
        as_: &Reader<Duration>,
        default: Duration,
        out: &mut Findings<'_>,
    ) -> Length {
        let read = self.read(key, as_, out);
        let refused = read.is_none() && self.get(key).is_some();
        Length { key, value: read.map_or(default, |at| at.value), refused }
    }

    /// The place of a key, or of the whole.
    pub(super) fn span(&self, key: &str) -> Span {
        let key = self.all().find_map(|fields| fields.key_span(key));
        key.or(self.all().next().map(|fields| fields.span)).unwrap_or(Span::START)
    }

    /// Reports a duration that is longer than another.
    pub(super) fn at_most(&self, length: Length, limit: Length, out: &mut Findings<'_>) {
        if length.value > limit.value {
            self.misfit(length, "longer", limit, out);
        }
    }

    /// Reports a duration that is shorter than another.
    pub(super) fn at_least(&self, length: Length, limit: Length, out: &mut Findings<'_>) {
        if length.value < limit.value {
            self.misfit(length, "shorter", limit, out);
        }
    }

    /// Defaults fit what is written, so that `length` is not one.
    fn misfit(&self, length: Length, word: &str, limit: Length, out: &mut Findings<'_>) {
        if length.refused || limit.refused {
            return;
        }
        let (key, other) = (length.key, limit.key);
        let (value, bound) = (written(length.value), written(limit.value));
        let message = format!("`{key}` ({value}) is {word} than `{other}` ({bound})");
        let report = |key| Report::error(code::BAD_CHECK, self.span(key), message);
        let change = "change one of them";
        out.push(match (self.depth(key), self.depth(other)) {
            (_, None) => report(key).help(format!("`{other}` is not written: by default it is {bound}")),
            // The mapping that is talked about comes first: the other may be right for everybody else.
            (near, far) if near < far => report(key).also(self.span(other), "inherited").help(change),
            (far, near) if near < far => report(other).also(self.span(key), "inherited").help(change),
            _ => report(key).help(change),
        });
    }

    fn all(&self) -> impl Iterator<Item = &Fields<'n>> {
        self.own.iter().chain(&self.inherited)
    }
}
