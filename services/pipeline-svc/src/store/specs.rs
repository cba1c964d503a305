//! The table `specs`: specifications by their content.

use ferroflow_db::row::Cells;
use ferroflow_db::{DbError, Read, WriteTx};

use crate::domain::spec::SpecText;

/// Keeps a specification; one that is there already is the same.
pub(crate) async fn put(tx: &mut WriteTx, spec: &SpecText) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO specs (digest, pipeline, platform) VALUES ($1, $2, $3) \
         ON CONFLICT (digest) DO NOTHING",
    )
    .bind(&spec.digest)
    .bind(&spec.pipeline)
    .bind(spec.platform.as_deref())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The specification of this digest.
pub(crate) async fn get(tx: &mut impl Read, digest: &str) -> Result<SpecText, DbError> {
    let query = sqlx::query("SELECT digest, pipeline, platform FROM specs WHERE digest = $1");
    let row = query.bind(digest).fetch_one(tx.conn()).await?;
    let cells = Cells::of("specs", &row);
    Ok(SpecText {
        digest: cells.text("digest")?,
        pipeline: cells.text("pipeline")?,
        platform: cells.text_opt("platform")?,
    })
}
