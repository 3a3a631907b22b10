"""Raters, answers, drafts, and an audit trail that the database itself keeps append only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.String(64)
# Of an entry, `old` and `new` may be blanked when a rater is erased; nothing else about it ever changes.
KEPT = ("id", "at", "who", "action", "rater_id", "item")


def _of(row: str) -> str:
    return ", ".join(f"{row}.{name}" for name in KEPT)


SQLITE_GUARDS = (
    """CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit trail is append only'); END""",
    f"""CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
    WHEN NEW.old IS NOT NULL OR NEW.new IS NOT NULL OR {" OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in KEPT)}
    BEGIN SELECT RAISE(ABORT, 'the audit trail is append only'); END""",
)
POSTGRESQL_GUARDS = (
    f"""CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'UPDATE' AND NEW.old IS NULL AND NEW.new IS NULL
        AND ({_of("NEW")}) IS NOT DISTINCT FROM ({_of("OLD")})
      THEN RETURN NEW; END IF;
      RAISE EXCEPTION 'the audit trail is append only';
    END $$""",
    """CREATE TRIGGER audit_guard BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only()""",
    """CREATE TRIGGER audit_truncate_guard BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()""",
)


def upgrade() -> None:
    """Make everything."""
    op.create_table(
        "study",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
    )
    op.create_table(
        "raters",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("label", NAME, nullable=False),
        sa.Column("order_index", sa.Integer, nullable=False),
        sa.Column("link_version", sa.Integer, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_raters"),
        sa.UniqueConstraint("label", name="uq_raters_label"),
        sa.UniqueConstraint("order_index", name="uq_raters_order_index"),
        sqlite_autoincrement=True,
    )
    _create_answers()
    op.create_table(
        "drafts",
        sa.Column("rater_id", sa.Integer, nullable=False),
        sa.Column("item", NAME, nullable=False),
        sa.Column("shown_at", TIME, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("saved_at", TIME),
        sa.PrimaryKeyConstraint("rater_id", "item", name="pk_drafts"),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.id"], name="fk_drafts_rater_id", ondelete="CASCADE"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", NAME, nullable=False),
        sa.Column("action", NAME, nullable=False),
        sa.Column("rater_id", sa.Integer),
        sa.Column("item", NAME),
        sa.Column("old", sa.Text),
        sa.Column("new", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_rater_id", "audit", ["rater_id"])
    guards = POSTGRESQL_GUARDS if op.get_bind().dialect.name == "postgresql" else SQLITE_GUARDS
    for guard in guards:
        op.execute(guard)


def _create_answers() -> None:
    scales = ("spatial", "trust", "usefulness")
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("rater_id", sa.Integer, nullable=False),
        sa.Column("item", NAME, nullable=False),
        sa.Column("before", NAME, nullable=False),
        sa.Column("before_at", TIME, nullable=False),
        sa.Column("after", NAME),
        *(sa.Column(scale, sa.Integer) for scale in scales),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("answered_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.UniqueConstraint("rater_id", "item", name="uq_answers_rater_id"),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.id"], name="fk_answers_rater_id", ondelete="CASCADE"),
        *(sa.CheckConstraint(f"{scale} BETWEEN 1 AND 5", name=op.f(f"ck_answers_{scale}")) for scale in scales),
    )


def downgrade() -> None:
    """There is nothing before the first tables."""
    raise NotImplementedError("the first migration cannot be taken back: it would delete answers")
