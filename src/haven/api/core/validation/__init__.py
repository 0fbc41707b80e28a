"""What is wrong with objects of the core group; one module per subject, plain functions that return complaints."""
