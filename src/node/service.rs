//! Serves streams: decodes a call, checks who asks, hands it on, sends the answer.

use super::{Node, join, peer_calls};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::FRAME_BYTES_MAX;
use crate::net::{ALPN_JOIN, ALPN_NODE, Incoming, Peer, Service, Stream};
use crate::proto::{Answer, Call};
use futures::future::BoxFuture;
use std::sync::Arc;

/// The caller of a request, as its certificate says.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub user: String,
    pub group: String,
    pub admin: bool,
}

impl Caller {
    fn of(peer: &Peer) -> Result<Caller> {
        match peer {
            Peer::User {
                name, group, admin, ..
            } => Ok(Caller {
                user: name.clone(),
                group: group.clone(),
                admin: *admin,
            }),
            Peer::Node { .. } | Peer::Nobody => {
                Err(Error::new(Code::Denied, "this identity is not a user's")
                    .hint("use a user's identity file"))
            }
        }
    }

    /// # Errors
    /// `denied` for everyone but administrators.
    pub fn must_be_admin(&self, what: &str) -> Result<()> {
        if self.admin {
            return Ok(());
        }
        let error = Error::new(Code::Denied, format!("only an administrator may {what}"));
        Err(error.hint("use an administrator's identity"))
    }
}

/// The node as the endpoint sees it.
pub(super) struct Calls(pub Arc<Node>);

impl Service for Calls {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let node = self.0.clone();
        Box::pin(async move {
            let remote = incoming.remote;
            if let Err(error) = serve_any(node, incoming).await {
                // The peer went away or sent no call; there is nobody to tell.
                tracing::debug!(%remote, %error, "a stream ended early");
            }
        })
    }
}

/// One stream, by the protocol it came on.
async fn serve_any(node: Arc<Node>, incoming: Incoming) -> Result<()> {
    match (incoming.alpn, &incoming.peer) {
        (ALPN_NODE, Peer::Node { id, .. }) => {
            let (from, mut stream) = (*id, incoming.stream);
            Box::pin(peer_calls::serve(node, from, &mut stream)).await
        }
        (ALPN_JOIN, _) => {
            let mut stream = incoming.stream;
            Box::pin(join::serve(node, &mut stream)).await
        }
        _ => serve(node, incoming).await,
    }
}

/// One stream of a client. An error here is the stream's own: every failure of a call is an answer.
///
/// What a kind of call keeps while it waits is boxed: else every stream would take as much memory
/// as the largest of them, and move it.
async fn serve(node: Arc<Node>, incoming: Incoming) -> Result<()> {
    let Incoming {
        peer, mut stream, ..
    } = incoming;
    let Some(frame) = stream.recv_frame().await? else {
        return Ok(());
    };
    let started = node.env.clock.now();
    let call = Caller::of(&peer).and_then(|caller| {
        let call = codec::decode::<Call>(&frame)
            .map_err(|e| Error::usage(format!("the request cannot be read ({})", e.message)))?;
        Ok((caller, call))
    });
    let (caller, call) = match call {
        Ok(both) => both,
        Err(error) => return reply(&mut stream, &Answer::Failed(error)).await,
    };
    drop(frame);
    let kind = node.metrics.kind_of(&call);
    let failed = match call {
        Call::PutChunk {
            ticket,
            hash,
            len,
            ack,
        } => {
            let put = node.put_chunk(&caller, &ticket, (hash, len), ack, &mut stream);
            let put = Box::pin(put).await;
            let put = put.map_err(|error| trouble_here(node.peers.told(error)));
            let failed = put.is_err();
            let answer = put.map_or_else(Answer::Failed, |copies| Answer::PutChunk { copies });
            reply(&mut stream, &answer).await?;
            failed
        }
        Call::GetChunk {
            ticket,
            hash,
            mac,
            offset,
            len,
        } => {
            let range = (u64::from(offset), u64::from(len));
            let shown = (&ticket, mac);
            Box::pin(node.get_chunk(&caller, shown, hash, range, &mut stream)).await?
        }
        call => {
            let manages = matches!(call, Call::Admin(_) | Call::Fsck { .. } | Call::Gc { .. });
            let answer = node.answer(&caller, call).await;
            let answer = answer.unwrap_or_else(|error| {
                let error = node.peers.told(error);
                match manages {
                    true => Answer::Failed(error),
                    false => Answer::Failed(trouble_here(error)),
                }
            });
            reply(&mut stream, &answer).await?;
            matches!(answer, Answer::Failed(_))
        }
    };
    node.metrics
        .record(kind, node.env.clock.now().saturating_sub(started), failed);
    Ok(())
}

/// What goes wrong on this node itself (its disk, say) is no answer to the client's question:
/// another node may do what was asked.
pub(super) fn trouble_here(error: Error) -> Error {
    match error.code {
        Code::Failed => Error {
            code: Code::Unavailable,
            ..error
        },
        _ => error,
    }
}

async fn reply(stream: &mut Stream, answer: &Answer) -> Result<()> {
    let too_long = |error| codec::encode(&Answer::Failed(error));
    reply_frame(stream, codec::encode(answer), too_long).await
}

/// Sends the last frame of an answer; one that is too long is replaced by what `too_long` makes of
/// the error.
pub(super) async fn reply_frame(
    stream: &mut Stream,
    frame: Vec<u8>,
    too_long: impl FnOnce(Error) -> Vec<u8>,
) -> Result<()> {
    let frame = match frame.len() > FRAME_BYTES_MAX {
        true => {
            let error = Error::usage(format!("the answer is too large ({} bytes)", frame.len()));
            too_long(error.hint("ask for less at once"))
        }
        false => frame,
    };
    stream.send_frame(&frame).await?;
    stream.finish()
}

impl Node {
    /// Answers every call that is one frame each way.
    async fn answer(self: &Arc<Self>, caller: &Caller, call: Call) -> Result<Answer> {
        match call {
            Call::Hello { .. } => self.hello(caller).await,
            Call::Mutate {
                shard,
                request,
                ack,
            } => Box::pin(self.mutate(caller, shard, &request, ack)).await,
            Call::Stat { path, level } => self.stat(path, level).await,
            Call::StatMany { paths, level } => self.stat_many(paths, level).await,
            Call::List {
                path,
                after,
                limit,
                attrs,
                known,
                level,
            } => self.list(path, after, limit, attrs, known, level).await,
            Call::Resolve {
                path,
                version,
                page,
                pinned,
                level,
            } => Box::pin(self.resolve(caller, path, version, page, pinned, level)).await,
            Call::Versions { path, level } => self.versions(path, level).await,
            Call::Deleted { path, level } => self.deleted(path, level).await,
            Call::UploadTicket { parent, upload } => {
                Box::pin(self.upload_ticket(caller, parent, upload)).await
            }
            Call::Known {
                parent,
                upload,
                hashes,
            } => Box::pin(self.known(caller, parent, upload, hashes)).await,
            Call::Pin {
                ticket,
                hashes,
                ack,
            } => Box::pin(self.pin(caller, &ticket, hashes, ack)).await,
            Call::Stored {
                ticket,
                hashes,
                ack,
            } => Box::pin(self.stored(caller, &ticket, hashes, ack)).await,
            Call::Status => {
                let overview = Box::pin(self.overview()).await?;
                Ok(Answer::Status(overview.status))
            }
            Call::Overview => Box::pin(self.overview()).await.map(Answer::Overview),
            Call::Fsck { path, chunks } => {
                caller.must_be_admin("check the cluster")?;
                Box::pin(self.fsck(path, chunks)).await.map(Answer::Fsck)
            }
            Call::Gc { now } => {
                caller.must_be_admin("clean up the cluster")?;
                Box::pin(self.gc(now)).await
            }
            Call::OpStatus { session, lane, seq } => {
                Box::pin(self.op_status(caller, session, lane, seq)).await
            }
            Call::Metrics => Box::pin(self.metrics_text()).await.map(Answer::Metrics),
            Call::Owners { hashes } => Ok(self.owners(&hashes)),
            Call::Admin(call) => {
                let done = Box::pin(self.admin(caller, call)).await;
                done.map(Answer::Admin)
            }
            Call::PutChunk { .. } | Call::GetChunk { .. } => {
                unreachable!("calls with raw bytes are served above")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_stream_takes_little_memory() {
        fn bytes<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let stream = bytes(serve);
        assert!(stream <= 2_500, "{stream} bytes: box the call that grew");
    }
}
