//! `foodflow-edge browse`: which nodes does an OPC UA server have, as they are written in a configuration?
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{collections::HashSet, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use futures_util::StreamExt as _;
use opcua::{
    client::Session,
    types::{
        BrowseDescription, BrowseDirection, BrowseResultMask, NodeClass, NodeClassMask, NodeId, ObjectId,
        ReferenceTypeId,
    },
};
use serde::Serialize;

use crate::source::opcua::client;

/// Browse an OPC UA server.
#[derive(Debug, Args)]
pub struct BrowseArgs {
    /// The server, like `opc.tcp://127.0.0.1:4840/`.
    #[arg(long, value_name = "URL")]
    url: String,
    /// Stop after this many nodes.
    #[arg(long, default_value_t = 10_000)]
    max: usize,
    /// Answer as JSON lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Found {
    path: String,
    node: String,
    namespace_uri: String,
    is_variable: bool,
}

/// Lists the nodes below the server's Objects folder, its own Server object left out.
pub async fn run(args: BrowseArgs) -> anyhow::Result<()> {
    let pki = std::env::temp_dir().join("foodflow-edge-pki");
    let found = with_session(&args.url, &pki, |session| async move {
        walk(&session, args.max).await
    })
    .await?;
    for node in found {
        if args.json {
            println!("{}", serde_json::to_string(&node)?);
        } else if node.is_variable {
            println!(
                "{:<40} node = \"{}\"  namespace_uri = \"{}\"",
                node.path, node.node, node.namespace_uri
            );
        } else {
            println!("{}/", node.path);
        }
    }
    Ok(())
}

/// Does something with a session and closes it.
pub(super) async fn with_session<T, F>(
    url: &str,
    pki: &std::path::Path,
    work: impl FnOnce(Arc<Session>) -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let (session, event_loop) = client::open(url, pki)?;
    let mut events = Box::pin(event_loop.enter());
    client::connected(url, &mut events)
        .await
        .with_context(|| format!("connecting to {url}"))?;
    let mut working = Box::pin(work(session.clone()));
    let result = loop {
        tokio::select! {
            result = &mut working => break result,
            event = events.next() => client::ended(event)?,
        }
    };
    let mut leaving = Box::pin(session.disconnect());
    let leave = async {
        loop {
            tokio::select! {
                left = &mut leaving => break left.map_err(|error| anyhow::anyhow!("{error}")),
                event = events.next() => if event.is_none() { break Ok(()) },
            }
        }
    };
    if tokio::time::timeout(std::time::Duration::from_secs(2), leave)
        .await
        .is_err()
    {
        tracing::debug!("the session was not closed in time");
    }
    result
}

async fn walk(session: &Session, max: usize) -> anyhow::Result<Vec<Found>> {
    let namespaces = session
        .read_namespace_array()
        .await
        .context("reading the namespace array")?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut queue = vec![(String::new(), NodeId::from(ObjectId::ObjectsFolder))];
    while let Some((path, node)) = queue.pop() {
        for child in children(session, &node).await? {
            let id = child.node_id.node_id.clone();
            let is_server_object = id == ObjectId::Server;
            if is_server_object || !seen.insert(id.clone()) || found.len() >= max {
                continue;
            }
            let path = format!("{path}/{}", child.display_name.text);
            let known = namespaces
                .known_namespaces()
                .iter()
                .find(|(_, index)| **index == id.namespace);
            found.push(Found {
                path: path.clone(),
                node: identifier(&id),
                namespace_uri: known.map_or_else(String::new, |(uri, _)| uri.clone()),
                is_variable: child.node_class == NodeClass::Variable,
            });
            queue.push((path, id));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

async fn children(
    session: &Session,
    node: &NodeId,
) -> anyhow::Result<Vec<opcua::types::ReferenceDescription>> {
    let description = BrowseDescription {
        node_id: node.clone(),
        browse_direction: BrowseDirection::Forward,
        reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
        include_subtypes: true,
        node_class_mask: (NodeClassMask::OBJECT | NodeClassMask::VARIABLE).bits(),
        result_mask: BrowseResultMask::All as u32,
    };
    let mut references = Vec::new();
    let mut results = session
        .browse(&[description], 0, None)
        .await
        .context("browsing")?;
    while let Some(result) = results.pop() {
        references.extend(result.references.unwrap_or_default());
        if !result.continuation_point.is_null() {
            let next = session
                .browse_next(false, &[result.continuation_point])
                .await
                .context("browsing on")?;
            results = next;
        }
    }
    Ok(references)
}

/// As it is written in a configuration.
fn identifier(id: &NodeId) -> String {
    let text = id.to_string();
    text.split_once(';')
        .map_or(text.clone(), |(_, identifier)| identifier.to_owned())
}
