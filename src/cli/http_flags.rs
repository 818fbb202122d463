//! The flags and the environment that every HTTP command shares.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::context::Context;
use crate::client::address::Address;
use crate::client::http::Http;
use crate::client::kv::{Consistency, ReadOptions};

/// Whom to talk to, and as whom.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "HTTP options")]
pub struct HttpFlags {
    /// The agent's address [env: CONSUL_HTTP_ADDR or QUORATE_HTTP_ADDR] [default: 127.0.0.1:8500]
    #[arg(long, value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// The token to send [env: CONSUL_HTTP_TOKEN]
    #[arg(long, hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token [env: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The datacenter to ask; by default the agent's own
    #[arg(long, value_name = "NAME")]
    pub datacenter: Option<String>,
    /// Let any server answer, however old its view
    #[arg(long)]
    pub stale: bool,
}

impl HttpFlags {
    /// The address from the flag, the environment or the default.
    ///
    /// # Errors
    /// If it is none, or asks for something that is not supported.
    pub fn address(&self, cx: &Context) -> anyhow::Result<Address> {
        if (cx.var)("CONSUL_HTTP_SSL").is_some_and(|on| super::argv::go_bool(&on) != Some(false)) {
            bail!("CONSUL_HTTP_SSL asks for HTTPS, which is not supported yet: unset it");
        }
        if (cx.var)("CONSUL_HTTP_AUTH").is_some() {
            bail!("CONSUL_HTTP_AUTH asks for basic authentication, which is not supported yet: unset it");
        }
        if let Some(text) = &self.http_addr {
            return text.parse().context("-http-addr");
        }
        for name in ["QUORATE_HTTP_ADDR", "CONSUL_HTTP_ADDR"] {
            if let Some(text) = (cx.var)(name) {
                return text.parse().context(name);
            }
        }
        Ok("127.0.0.1:8500".parse()?)
    }

    /// Whether the flags say whom to talk to, which programs that are started from here do not see.
    pub fn names_address(&self) -> bool {
        self.http_addr.is_some()
    }

    /// The token from the flags or the environment; what is more explicit wins.
    ///
    /// # Errors
    /// If a file that is named cannot be read.
    pub async fn token(&self, cx: &Context) -> anyhow::Result<Option<String>> {
        let file = match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => bail!("-token and -token-file exclude each other"),
            (Some(token), None) => return Ok(Some(token.clone())),
            (None, Some(file)) => Some(file.clone()),
            (None, None) => match (cx.var)("CONSUL_HTTP_TOKEN") {
                Some(token) => return Ok(Some(token)),
                None => (cx.var)("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from),
            },
        };
        let Some(file) = file else { return Ok(None) };
        let text = String::from_utf8(cx.file(&file).await?).context("the token file is not text")?;
        Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
    }

    /// A client that connects when it is first used.
    ///
    /// # Errors
    /// As [`HttpFlags::address`] and [`HttpFlags::token`].
    pub async fn client(&self, cx: &Context) -> anyhow::Result<Http> {
        let (address, token) = (self.address(cx)?, self.token(cx).await?);
        Ok(Http::new(cx.world.clone(), address, token.as_deref())?)
    }

    /// How to read by these flags.
    pub fn read_options(&self) -> ReadOptions {
        let consistency = if self.stale { Consistency::Stale } else { Consistency::Default };
        ReadOptions { consistency, datacenter: self.datacenter.clone(), ..ReadOptions::default() }
    }
}
