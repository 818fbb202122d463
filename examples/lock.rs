//! Holds a lock while it works: `cargo run --example lock -- 127.0.0.1:8500`.

use std::time::Duration;

use quorate::client::http::Http;
use quorate::client::kv::PutOptions;
use quorate::client::lock::Lock;
use quorate::error::{Error, Result};
use quorate::world::{World, real};

fn main() -> Result<()> {
    real::block_on(work).map_err(|e| Error::io("no event queue", &e))?
}

async fn work(world: World) -> Result<()> {
    let agent = std::env::args().nth(1).unwrap_or("127.0.0.1:8500".into());
    let http = Http::new(world.clone(), agent.parse()?, None)?;
    let lock = Lock::new(&http, "example/lock").session("an example", Duration::from_secs(10));
    let Some(guard) = lock.acquire(Some(Duration::from_secs(60))).await? else {
        println!("somebody else has held it for a minute");
        return Ok(());
    };
    println!("held under fence {:?}", guard.fence());
    let job = async {
        for step in 1..=5 {
            // Refused as soon as another one holds the lock, however late it arrives.
            let options = PutOptions { under: guard.under(), ..PutOptions::default() };
            http.kv_put("example/step", step.to_string().into(), &options).await?;
            world.sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    };
    // Whatever is not fenced has to stop when the lock is lost: before its lease ends, at the latest.
    let outcome = tokio::select! {
        done = job => done,
        loss = guard.lost() => Err(Error::Retry(format!("lost the lock: {loss}"))),
    };
    guard.release().await?;
    outcome
}
