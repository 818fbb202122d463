//! Stands for election and watches who leads: `cargo run --example election -- NAME 127.0.0.1:8500`, several times.

use std::time::Duration;

use quorate::client::election::Election;
use quorate::client::http::Http;
use quorate::error::{Error, Result};
use quorate::world::{World, real};

fn main() -> Result<()> {
    real::block_on(stand).map_err(|e| Error::io("no event queue", &e))?
}

async fn stand(world: World) -> Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or("me".into());
    let http = Http::new(world.clone(), args.next().unwrap_or("127.0.0.1:8500".into()).parse()?, None)?;
    let election = Election::new(&http, "example/leader").ttl(Duration::from_secs(5));
    let mut observer = election.observe();
    let look_on = async {
        loop {
            match observer.next().await? {
                Some(leader) => println!("{} leads", String::from_utf8_lossy(&leader.value)),
                None => println!("nobody leads"),
            }
        }
    };
    let lead = async {
        let Some(leadership) = election.campaign(name.clone(), None).await? else { return Ok(()) };
        println!("elected, under fence {:?}", leadership.guard().fence());
        tokio::select! {
            () = world.sleep(Duration::from_secs(10)) => leadership.resign().await.map(drop),
            loss = leadership.guard().lost() => Err(Error::Retry(format!("leads no more: {loss}"))),
        }
    };
    tokio::select! {
        watched = look_on => watched,
        led = lead => led,
    }
}
