//! The request of an HTTP check, and what its response must be, compiled from a config. Must not know connections.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use regex::bytes::Regex;

use super::Unusable;
use super::answer::{Answer, Needle};
use super::failure::{Failure, excerpt};
use crate::model::{BodyMatch, HttpCheck};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("lb-health/", env!("CARGO_PKG_VERSION")));

/// A request without the host that depends on the target.
pub(super) struct Template {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    own_port: u16,
}

/// What a response must be.
pub(super) struct Wanted {
    status: Vec<RangeInclusive<u16>>,
    body: Option<Body>,
}

/// What a body must hold.
enum Body {
    Contains(Needle),
    Matches(Regex),
}

impl Template {
    pub(super) fn new(check: &HttpCheck) -> Result<Self, Unusable> {
        let method = Method::from_bytes(check.method.as_bytes()).ok();
        // CONNECT has no path, and asks for a tunnel.
        let method = method.filter(|method| *method != Method::CONNECT);
        let method = method.ok_or_else(|| Unusable::Method(check.method.clone()))?;
        let target = check.path.starts_with('/').then(|| check.path.parse().ok()).flatten();
        let target = target.ok_or_else(|| Unusable::Path(check.path.clone()))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &check.headers {
            let refused = || Unusable::Header(name.clone());
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
            headers.append(key, HeaderValue::from_str(value).map_err(|_| refused())?);
        }
        if let Some(host) = &check.host {
            let host = HeaderValue::from_str(host).map_err(|_| Unusable::Header("Host".to_owned()))?;
            headers.insert(header::HOST, host);
        }
        headers.entry(header::USER_AGENT).or_insert(AGENT);
        headers.entry(header::CONNECTION).or_insert(HeaderValue::from_static("close"));
        let own_port = if check.tls.is_some() { 443 } else { 80 };
        Ok(Self { method, target, headers, own_port })
    }

    /// The request for a target.
    pub(super) fn request(&self, target: SocketAddr) -> Result<Request<Empty<Bytes>>, Failure> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        if !self.headers.contains_key(header::HOST) {
            let host = HeaderValue::try_from(self.host(target));
            let host = host.map_err(|e| Failure::Local(format!("Host header: {e}")))?;
            request.headers_mut().insert(header::HOST, host);
        }
        Ok(request)
    }

    fn host(&self, target: SocketAddr) -> String {
        // A zone (RFC 6874) means nothing to anybody else.
        let address = match target {
            SocketAddr::V4(target) => target.ip().to_string(),
            SocketAddr::V6(target) => format!("[{}]", target.ip()),
        };
        match target.port() {
            port if port == self.own_port => address,
            port => format!("{address}:{port}"),
        }
    }
}

impl Wanted {
    pub(super) fn new(check: &HttpCheck) -> Result<Self, Unusable> {
        let body = match &check.expected_body {
            None => None,
            Some(BodyMatch::Contains(text)) => Some(Body::Contains(Needle::new(text.as_bytes()))),
            Some(BodyMatch::Regex(pattern)) => Some(Body::Matches(compile(pattern)?)),
        };
        Ok(Self { status: check.expected_status.clone(), body })
    }

    pub(super) fn status(&self, got: StatusCode) -> Result<(), Failure> {
        let got = got.as_u16();
        match self.status.iter().any(|range| range.contains(&got)) {
            true => Ok(()),
            false => Err(Failure::Status { got, wanted: ranges(&self.status) }),
        }
    }

    /// Whether the body does not matter.
    pub(super) fn any_body(&self) -> bool {
        self.body.is_none()
    }

    /// Whether what has come of the body is enough. Expressions wait for all of it: they may ask where it ends.
    pub(super) fn body_so_far(&self, body: &mut Answer) -> bool {
        match &self.body {
            None => true,
            Some(Body::Contains(needle)) => body.contains(needle),
            Some(Body::Matches(_)) => false,
        }
    }

    /// The verdict on all of the body that is read.
    pub(super) fn body(&self, body: &Answer) -> Result<(), Failure> {
        let (passes, wanted) = match &self.body {
            None => return Ok(()),
            Some(Body::Contains(needle)) => (needle.is_in(body.bytes()), needle.missing()),
            Some(Body::Matches(regex)) => (
                regex.is_match(body.bytes()),
                format!("does not match `{}`", excerpt(regex.as_str().as_bytes())),
            ),
        };
        if passes { Ok(()) } else { Err(Failure::Body { wanted, got: excerpt(body.bytes()) }) }
    }
}

fn compile(pattern: &str) -> Result<Regex, Unusable> {
    Regex::new(pattern).map_err(|error| {
        // Syntax errors come with a drawing; the last line says what is wrong.
        let words = error.to_string();
        let last = words.lines().last().unwrap_or_default().trim();
        let why = last.strip_prefix("error: ").unwrap_or(last).to_owned();
        Unusable::Regex { pattern: pattern.to_owned(), why }
    })
}

fn ranges(status: &[RangeInclusive<u16>]) -> String {
    let words = status.iter().map(|range| match (range.start(), range.end()) {
        (one, same) if one == same => one.to_string(),
        (first, last) => format!("{first}–{last}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TlsCheck;

    fn check() -> HttpCheck {
        HttpCheck {
            tls: None,
            method: "GET".into(),
            path: "/healthz?full=1".into(),
            host: None,
            headers: Vec::new(),
            expected_status: vec![200..=399],
            expected_body: None,
        }
    }

    fn host(check: &HttpCheck, target: &str) -> String {
        let request = Template::new(check).unwrap().request(target.parse().unwrap()).unwrap();
        request.headers()[header::HOST].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_host_is_the_target_unless_given() {
        assert_eq!(host(&check(), "192.0.2.1:80"), "192.0.2.1");
        assert_eq!(host(&check(), "192.0.2.1:443"), "192.0.2.1:443");
        assert_eq!(host(&check(), "[2001:db8::1]:8080"), "[2001:db8::1]:8080");
        let https = HttpCheck { tls: Some(TlsCheck::default()), ..check() };
        assert_eq!(host(&https, "[2001:db8::1]:443"), "[2001:db8::1]");
        let named = HttpCheck { host: Some("www.test".into()), ..check() };
        assert_eq!(host(&named, "192.0.2.1:80"), "www.test");
        let header = HttpCheck { headers: vec![("host".into(), "header.test".into())], ..check() };
        assert_eq!(host(&header, "192.0.2.1:80"), "header.test");
    }

    #[test]
    fn defaults_give_way_to_headers() {
        let target = "192.0.2.1:80".parse().unwrap();
        let request = Template::new(&check()).unwrap().request(target).unwrap();
        assert_eq!(request.headers()[header::USER_AGENT], AGENT);
        assert_eq!(request.headers()[header::CONNECTION], "close");
        assert_eq!(request.uri(), "/healthz?full=1");
        let headers = vec![
            ("User-Agent".into(), "mine".into()),
            ("X-A".into(), "1".into()),
            ("x-a".into(), "2".into()),
        ];
        let request = Template::new(&HttpCheck { headers, ..check() }).unwrap().request(target).unwrap();
        assert_eq!(request.headers()[header::USER_AGENT], "mine");
        assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_in_words() {
        let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let cases = [
            (HttpCheck { method: "CONNECT".into(), ..check() }, "`CONNECT` is not an HTTP method for checks"),
            (HttpCheck { method: "G ET".into(), ..check() }, "`G ET` is not an HTTP method for checks"),
            (HttpCheck { path: "healthz".into(), ..check() }, "`healthz` is not a request path"),
            (HttpCheck { path: "/a b".into(), ..check() }, "`/a b` is not a request path"),
            (
                HttpCheck { headers: header("X-A", "1\r\nX-B: 2"), ..check() },
                "header `X-A` cannot be sent: its name or value has forbidden characters",
            ),
            (
                HttpCheck { host: Some("a\nb".into()), ..check() },
                "header `Host` cannot be sent: its name or value has forbidden characters",
            ),
        ];
        for (check, words) in cases {
            assert_eq!(Template::new(&check).err().map(|e| e.to_string()).as_deref(), Some(words));
        }
        let bad = HttpCheck { expected_body: Some(BodyMatch::Regex("a(b".into())), ..check() };
        let words = "regular expression `a(b`: unclosed group";
        assert_eq!(Wanted::new(&bad).err().map(|e| e.to_string()).as_deref(), Some(words));
    }

    #[test]
    fn status_ranges() {
        let wanted =
            Wanted::new(&HttpCheck { expected_status: vec![200..=299, 404..=404], ..check() }).unwrap();
        for (status, passes) in [(199, false), (200, true), (299, true), (300, false), (404, true)] {
            assert_eq!(wanted.status(StatusCode::from_u16(status).unwrap()).is_ok(), passes, "{status}");
        }
        let failure = wanted.status(StatusCode::SERVICE_UNAVAILABLE).unwrap_err();
        assert_eq!(failure.to_string(), "HTTP 503, wanted 200–299, 404");
    }
}
