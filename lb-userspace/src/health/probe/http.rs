//! Probes by an HTTP/1.1 request, over TLS or not. Must not know what makes a response good.

use std::error::Error;
use std::io;

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::{Answer, LIMIT};
use super::dial::Dial;
use super::failure::Failure;
use super::progress::{Progress, Stage};
use super::request::{Template, Wanted};
use super::tls::Client;
use super::{Prober, Probing, Unusable};
use crate::model::HttpCheck;

/// Sends a request and judges the response.
pub(super) struct Request {
    template: Template,
    wanted: Wanted,
    tls: Option<Client>,
}

impl Request {
    pub(super) fn new(check: &HttpCheck) -> Result<Self, Unusable> {
        let tls = check.tls.as_ref().map(|tls| Client::new(tls, check.host.as_deref())).transpose()?;
        Ok(Self { template: Template::new(check)?, wanted: Wanted::new(check)?, tls })
    }

    async fn connect(&self, dial: &Dial, progress: &Progress) -> Result<(), Failure> {
        let stream = dial.tcp().await?;
        match &self.tls {
            None => self.exchange(stream, dial, progress).await,
            Some(tls) => {
                progress.at(Stage::Handshake);
                self.exchange(tls.handshake(stream, dial.target.ip()).await?, dial, progress).await
            }
        }
    }

    /// Runs connection and exchange side by side, so that no task is left behind when the probe is dropped.
    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        dial: &Dial,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let request = self.template.request(dial.target)?;
        progress.at(Stage::Header);
        let handshake = http1::Builder::new().max_buf_size(LIMIT).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| words(&e, Stage::Header))?;
        let work = async {
            let response = sender.send_request(request).await.map_err(|e| words(&e, Stage::Header))?;
            self.judge(response, progress).await
        };
        tokio::pin!(work);
        tokio::select! {
            biased;
            result = &mut work => return result,
            // It hands its error to whoever waits for the response or the body.
            _ = connection => {}
        }
        work.await
    }

    async fn judge(&self, response: Response<Incoming>, progress: &Progress) -> Result<(), Failure> {
        self.wanted.status(response.status())?;
        if self.wanted.any_body() {
            return Ok(());
        }
        progress.at(Stage::Body);
        let (mut body, mut read) = (response.into_body(), Answer::default());
        while !read.is_full() && !self.wanted.body_so_far(&mut read) {
            let Some(frame) = body.frame().await else { break };
            let frame = frame.map_err(|e| words(&e, Stage::Body))?;
            read.push(frame.data_ref().map_or(&[], |data| data));
        }
        self.wanted.body(&read)
    }
}

impl Prober for Request {
    fn probe<'a>(&'a self, dial: &'a Dial, progress: &'a Progress) -> Probing<'a> {
        Box::pin(self.connect(dial, progress))
    }
}

/// What an error of the HTTP library means.
fn words(error: &hyper::Error, stage: Stage) -> Failure {
    if error.is_parse() {
        return Failure::Protocol(format!("no valid HTTP/1.1 response: {error}"));
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Failure::Closed { stage };
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Failure::from_io(io, stage);
        }
        source = cause.source();
    }
    Failure::Protocol(format!("HTTP: {error}"))
}
