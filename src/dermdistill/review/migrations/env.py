"""What Alembic runs: the migrations, on the connection and in the transaction that the server hands over."""

from alembic import context

from dermdistill.review.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
