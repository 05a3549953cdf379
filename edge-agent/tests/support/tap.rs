//! What does an MQTT 5 client really send? A line between it and a real broker that passes every byte on, and tells the
//! client's packets in their order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::Packet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};

const WITHIN: Duration = Duration::from_mins(1);

/// What a client did.
#[derive(Debug)]
pub enum Sent {
    Packet(Box<Packet>),
    /// It closed the connection, or the line was cut.
    Closed,
}

/// The line.
#[derive(Debug)]
pub struct Tap {
    pub address: SocketAddr,
    sent: mpsc::Receiver<Sent>,
    cut: Arc<Notify>,
}

impl Tap {
    /// Listens on a free port and leads to `broker`.
    pub async fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, sent) = mpsc::channel(10_000);
        let cut = Arc::new(Notify::new());
        let cutting = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(broker).await else {
                    continue;
                };
                pass(client, server, &tell, &cutting).await;
                if tell.send(Sent::Closed).await.is_err() {
                    return;
                }
            }
        });
        Self { address, sent, cut }
    }

    /// Ends the connection that is there.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// What the client does next.
    pub async fn next(&mut self) -> Sent {
        tokio::time::timeout(WITHIN, self.sent.recv())
            .await
            .expect("the client does nothing more")
            .unwrap()
    }

    /// Everything up to the first packet that is wanted.
    pub async fn until(&mut self, is_wanted: impl Fn(&Packet) -> bool) -> Vec<Packet> {
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Sent::Packet(packet) => {
                    let is_it = is_wanted(&packet);
                    seen.push(*packet);
                    if is_it {
                        return seen;
                    }
                }
                Sent::Closed => panic!("the client left after {seen:#?}"),
            }
        }
    }

    /// Everything up to the end of the connection.
    pub async fn until_closed(&mut self) -> Vec<Packet> {
        let mut seen = Vec::new();
        while let Sent::Packet(packet) = self.next().await {
            seen.push(*packet);
        }
        seen
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, tell: &mpsc::Sender<Sent>, cut: &Notify) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let (mut bytes, mut whole) = (BytesMut::new(), BytesMut::new());
        loop {
            bytes.clear();
            match from_client.read_buf(&mut bytes).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
            whole.extend_from_slice(&bytes);
            while let Ok(packet) = Packet::read(&mut whole, None) {
                if tell.send(Sent::Packet(Box::new(packet))).await.is_err() {
                    return;
                }
            }
            if to_server.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let down = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = up => {}
        _ = down => {}
        () = cut.notified() => {}
    }
}
